-- Why URLs were not downloaded.
SELECT outcome AS reason, sum(count)::BIGINT AS "URLs",
    {'share': "URLs" / sum("URLs") OVER (), 'length': "URLs" / max("URLs") OVER (), 'style': 'drop'} AS share,
    sum(may_pass)::BIGINT AS "may succeed", max(attempts) AS "most attempts", max(last) AS "last attempt (UTC)",
    any_value(meaning) AS meaning
FROM {downloads} LEFT JOIN reasons ON reasons.reason = outcome
WHERE outcome <> 'came'
GROUP BY outcome
ORDER BY "URLs" DESC, outcome
LIMIT 40
