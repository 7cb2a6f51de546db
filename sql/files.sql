-- Size of the run by kind of file.
-- theme: Files and failures
-- column: kind   shards by suffix, a table by name, or the file
-- column: files  how many
-- column: rows   in all of them; null where files have no rows
-- column: bytes  total size
-- column: share  of all bytes of the run
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
