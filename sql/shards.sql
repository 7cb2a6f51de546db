-- Files of the curated shards, with size and digest.
-- theme: Files and failures
-- column: path    path of the file, relative to the run folder
-- column: rows    number of samples in the file
-- column: bytes   size of the file in bytes
-- column: sha256  sha256 of the file
SELECT m.path, coalesce(m.rows, p.rows) AS rows, m.bytes, m.sha256
FROM manifest m
LEFT JOIN (SELECT shard AS path, count(*) AS rows FROM published GROUP BY shard) p USING (path)
WHERE m.path LIKE 'shards/%.tar' OR m.path IN (SELECT shard FROM published)
ORDER BY m.path;
