-- Number and size of the run's files, by kind.
-- theme: Files and failures
-- column: kind   a table, shard files with the same suffix, or a single file
-- column: files  number of files
-- column: rows   number of rows in these files; null if they have none
-- column: bytes  total size in bytes
-- column: share  bytes / total size of the run
SELECT
    CASE
        WHEN path LIKE 'tables/%' THEN regexp_extract(path, '^tables/[^/]+')
        WHEN path LIKE 'shards/%' THEN 'shards/*' || regexp_extract(path, '(_stats\.json|\.[^./]+)$')
        ELSE path
    END AS kind,
    count(*) AS files,
    sum(rows) AS rows,
    sum(bytes) AS bytes,
    sum(bytes) / sum(sum(bytes)) OVER () AS share
FROM manifest
GROUP BY kind
ORDER BY bytes DESC, kind;
