-- What happened to the URLs of each source.
SELECT source, sum(count)::BIGINT AS "URLs", coalesce(sum(count) FILTER (outcome = 'came'), 0)::BIGINT AS downloaded,
    {'share': downloaded / "URLs"} AS "share downloaded", "URLs" - downloaded AS "not downloaded",
    sum(may_pass)::BIGINT AS "may succeed", max(attempts) AS "most attempts", max(last) AS "last attempt (UTC)"
FROM {downloads}
GROUP BY source
ORDER BY source
LIMIT 40
