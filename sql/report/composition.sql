-- Rows of the pool and kept ones by source, by language and by format; `others` says by which.
SELECT source, language, format, grouping(source, language, format) AS others,
    count(*) AS pool, count(*) FILTER (kept) AS kept
FROM verdicts
GROUP BY GROUPING SETS ((source), (language), (format))
ORDER BY pool DESC, source, language, format
