-- Number of groups of duplicates by their size; groups of 10 and more are added up.
SELECT if(n < 10, n::VARCHAR, '10 and more') AS "duplicates of one sample", count(*) AS groups, sum(n)::BIGINT AS dropped
FROM (SELECT count(*) AS n FROM decisions WHERE rule = 'duplicate' GROUP BY duplicate_of)
GROUP BY 1
ORDER BY min(n)
