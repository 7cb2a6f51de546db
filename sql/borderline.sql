-- Samples near a threshold: the lowest values among the kept, the highest among the dropped.
-- theme: Samples to look at
-- param: of = null [number of measured]  the number; null: the score in the rules, else clip_score
-- param: rule = null [rule]              the rule that dropped; null: rules that name the number, or any if none does
-- param: limit = 10                      maximum number on each side
-- column: side     kept or dropped
-- column: measure  name of the number
-- column: value    the number
-- column: rule     rule that dropped it; null if kept
-- column: uid      the sample
-- column: caption  its caption
-- column: url      its URL
WITH naming AS (
    SELECT name FROM rules WHERE list_contains(regexp_extract_all(lower(expression), '\w+'), lower($of))
), seen AS (
    SELECT unit, row, d.uid, d.kept, d.rule, struct_extract("measured row", $of)::DOUBLE AS value
    FROM measured AS "measured row" JOIN decisions d USING (unit, row)
    WHERE struct_extract("measured row", $of) IS NOT NULL AND CASE
        WHEN d.kept THEN true
        WHEN $rule IS NOT NULL THEN d.rule = $rule
        WHEN EXISTS (FROM naming) THEN d.rule IN (FROM naming)
        ELSE d.rule <> 'failed'
    END
), sides AS (
    (SELECT *, value AS place FROM seen WHERE kept ORDER BY place, uid, unit, row LIMIT $limit)
    UNION ALL
    (SELECT *, -value AS place FROM seen WHERE NOT kept ORDER BY place, uid, unit, row LIMIT $limit)
)
SELECT
    CASE WHEN n.kept THEN 'kept' ELSE 'dropped' END AS side, $of AS measure, n.value, n.rule, n.uid, s.caption, s.url
FROM sides n JOIN samples s USING (unit, row)
ORDER BY n.kept DESC, n.place, n.uid, n.unit, n.row;
