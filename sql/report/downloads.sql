-- URLs of all sources, of each source, and of each outcome, from the named query of this name.
SELECT source, outcome, sum(count)::BIGINT AS urls,
    coalesce(sum(count) FILTER (outcome <> 'came'), 0)::BIGINT AS missing,
    sum(may_pass)::BIGINT AS may_pass, max(attempts) AS attempts, max(last) AS last, any_value(meaning) AS meaning
FROM {downloads} LEFT JOIN reasons ON reason = outcome
GROUP BY GROUPING SETS ((), (source), (outcome))
ORDER BY source, urls DESC, outcome
