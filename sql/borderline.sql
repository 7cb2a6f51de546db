-- Samples near a threshold: lowest values that were kept, highest that were dropped.
-- theme: Samples to look at
-- param: of = null [number of measured]  the number to look at; null: the first score that a rule names, otherwise `clip_score`
-- param: rule = null [rule]              show only samples that this rule dropped; null: any rule whose expression names the number. If no rule names it, any rule
-- param: limit = 10                      maximum number of kept samples, and of dropped samples
-- column: side     kept or dropped
-- column: measure  name of the number
-- column: value    the sample's value of this number
-- column: rule     the rule that dropped the sample; null if it was kept
-- column: uid      uid of the sample
-- column: caption  caption of the sample
-- column: url      URL of the sample
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
