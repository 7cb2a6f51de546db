-- Rows of the pool and kept ones by a column that states licenses.
SELECT struct_extract(v, $stated)::VARCHAR AS name, count(*) AS pool, count(*) FILTER (kept) AS kept
FROM verdicts v
GROUP BY name
ORDER BY pool DESC, name
