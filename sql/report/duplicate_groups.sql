-- Groups of duplicates by their size, 10 and more together.
SELECT if(n < 10, n::VARCHAR, '10 and more') AS "duplicates of one sample", count(*) AS groups, sum(n)::BIGINT AS dropped
FROM (SELECT count(*) AS n FROM decisions WHERE rule = 'duplicate' GROUP BY duplicate_of)
GROUP BY 1
ORDER BY min(n)
