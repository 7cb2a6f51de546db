-- How many of the given rows each rule dropped, and how many were kept.
SELECT count(*) AS rows, coalesce('dropped by ' || rule, 'kept') AS verdict
FROM decisions
SEMI JOIN (SELECT unnest($positions::STRUCT(unit INT, row INT)[], recursive := true)) USING (unit, row)
GROUP BY rule
ORDER BY rule NULLS FIRST
