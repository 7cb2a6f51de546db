-- The $hosts hosts with the most URLs that were not downloaded.
SELECT host, sum(never_came)::BIGINT AS missing, round(any_value(count / share))::BIGINT AS urls,
    arg_max(reason, (never_came, reason)) AS most, sum(may_pass)::BIGINT AS may_pass
FROM {failures_by_host}
WHERE never_came > 0
GROUP BY host
ORDER BY missing DESC, urls, host
LIMIT $hosts
