-- Rows of the pool and kept ones by source, by language and by format; `column` says by which.
SELECT ['source', 'language', 'format'][list_position([3, 5, 6], grouping(source, language, format))] AS "column",
    coalesce(source, language, format) AS name, count(*) AS pool, count(*) FILTER (kept) AS kept
FROM verdicts
GROUP BY GROUPING SETS ((source), (language), (format))
