-- The curated shards.
-- theme: Files and failures
-- column: path    file, relative to the run folder
-- column: rows    samples in it
-- column: bytes   its size
-- column: sha256  its digest
SELECT m.path, coalesce(m.rows, p.rows) AS rows, m.bytes, m.sha256
FROM manifest m
LEFT JOIN (SELECT shard AS path, count(*) AS rows FROM published GROUP BY shard) p USING (path)
WHERE m.path LIKE 'shards/%.tar' OR m.path IN (SELECT shard FROM published)
ORDER BY m.path;
