-- Units whose tables contradict themselves, and how.
WITH joined AS (
    SELECT unit, d.uid, d.kept, d.rule, s.uid AS measured FROM decisions d FULL JOIN samples s USING (unit, row)
)
SELECT unit, 'is not aligned with samples' AS fault FROM joined WHERE uid IS DISTINCT FROM measured GROUP BY unit
UNION ALL
SELECT unit, 'a row is both kept and dropped by a rule, or neither'
FROM joined WHERE kept IS DISTINCT FROM (rule IS NULL) GROUP BY unit
ORDER BY ALL
