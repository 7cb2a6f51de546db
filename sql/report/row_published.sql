-- The shards that have a row, the key of its sample, and the suffixes of the sample's files.
WITH files AS (
  SELECT coalesce(m.suffix, [CASE s.format WHEN 'jpeg' THEN 'jpg' ELSE s.format END]) || ['json', 'txt'] AS suffixes
  FROM samples s LEFT JOIN members m USING (unit, row)
  WHERE s.unit = $unit AND s.row = $row
)
SELECT p.shard, p.key, list_sort(list_distinct(f.suffixes)) AS suffixes
FROM published p, files f
WHERE p.uid = $uid
ORDER BY ALL
