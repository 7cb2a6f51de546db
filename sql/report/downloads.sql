-- How many URLs were tried, how many were not downloaded, and how many of these may succeed on another attempt.
SELECT coalesce(sum(count), 0)::BIGINT AS urls,
    coalesce(sum(count) FILTER (outcome <> 'came'), 0)::BIGINT AS missing,
    coalesce(sum(may_pass), 0)::BIGINT AS may_pass
FROM {downloads}
