-- Size of the run by kind of file.
-- theme: Files and failures
-- column: kind   shards by suffix, a table, or a file
-- column: files  number of files
-- column: rows   their rows; null for files without rows
-- column: bytes  total size
-- column: share  share of all bytes of the run
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
