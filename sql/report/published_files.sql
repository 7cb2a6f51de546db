-- Published files by what they are.
SELECT
    CASE
        WHEN path LIKE 'shards/%.tar' THEN 'shards, tar'
        WHEN path LIKE 'shards/%' THEN 'shards, Parquet and statistics'
        WHEN path LIKE 'tables/%' THEN 'tables'
        ELSE 'other files'
    END AS what,
    count(*) AS files, sum(bytes)::BIGINT AS bytes
FROM manifest
WHERE path <> $report
GROUP BY what
ORDER BY bytes DESC
