-- Rows of the pool and kept ones by a column that states licenses.
SELECT $stated AS "column", struct_extract(v, $stated)::VARCHAR AS name, count(*) AS pool, count(*) FILTER (kept) AS kept
FROM verdicts v
GROUP BY ALL
