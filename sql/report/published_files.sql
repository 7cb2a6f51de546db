-- Published files by kind, without the report.
SELECT
    CASE
        WHEN path LIKE 'shards/%.tar' THEN 'shards, tar'
        WHEN path LIKE 'shards/%' THEN 'shards, Parquet and statistics'
        WHEN path LIKE 'tables/%' THEN 'tables'
        ELSE 'other files'
    END AS published,
    count(*) AS files, sum(bytes)::BIGINT AS size
FROM manifest
WHERE path <> $report
GROUP BY published
ORDER BY size DESC
