-- The hosts with the most URLs that were not downloaded.
SELECT host, round(any_value(count / share))::BIGINT AS "URLs", sum(never_came)::BIGINT AS "not downloaded",
    {'share': "not downloaded" / "URLs", 'style': 'drop'} AS "share of the host", sum(may_pass)::BIGINT AS "may succeed",
    arg_max(reason, (never_came, reason)) AS "most frequent reason"
FROM {failures_by_host}
WHERE never_came > 0
GROUP BY host
ORDER BY "not downloaded" DESC, "URLs", host
LIMIT 15
