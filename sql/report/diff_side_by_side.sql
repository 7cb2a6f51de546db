-- CHANGES from two tables with name, kept, changed: 0 if only the other table has the name, null if a table is missing.
SELECT name, sum(a)::BIGINT AS a, sum(b)::BIGINT AS b, sum(lost)::BIGINT AS lost, sum(gained)::BIGINT AS gained
FROM (
    SELECT name, kept AS a, if($has_b, 0, NULL) AS b, changed AS lost, if($has_b, 0, NULL) AS gained FROM of_a
    UNION ALL
    SELECT name, if($has_a, 0, NULL), kept, if($has_a, 0, NULL), changed FROM of_b
)
GROUP BY name
