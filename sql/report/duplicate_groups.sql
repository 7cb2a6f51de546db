-- Groups of duplicates by their size, 10 and more together.
SELECT least(n, 10) AS n, count(*) AS groups, sum(n)::BIGINT AS rows
FROM (SELECT count(*) AS n FROM decisions WHERE rule = 'duplicate' GROUP BY duplicate_of)
GROUP BY 1
ORDER BY 1
