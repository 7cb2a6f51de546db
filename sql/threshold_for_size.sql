-- The threshold of a score or number that a given number of samples pass.
-- Counted at the position of the rule, over the samples that reach it. Samples with equal values pass together, so that `passed`
-- may be larger.
-- theme: Scores and thresholds
-- param: of = null [number of measured]  the number; null is the score of the rules, else clip_score
-- param: rule = null [rule]              the position: samples that reach this rule; null is samples that passed all rules
-- param: rows = 1000 [positive]          target number of samples that pass
-- column: measure    the number's name
-- column: threshold  the greatest that at least `rows` samples pass; null where there are fewer
-- column: reached    samples that reach the position
-- column: passed     of those, at least at the threshold
-- column: above      of those, above the threshold: how many the next greater one would leave
-- column: top        passed, as a share of samples that have the number: the `top` of a rule
WITH steps AS (
    SELECT rule, position FROM funnel WHERE kind = 'drop'
), place AS (
    SELECT CASE
        WHEN $rule IS NOT NULL THEN (SELECT position FROM steps WHERE rule = $rule)
        ELSE (SELECT 1 + coalesce(max(s.position), 0) FROM steps s WHERE s.rule = 'failed' OR s.rule IN (SELECT name FROM rules))
    END AS position
), reached AS MATERIALIZED (
    SELECT struct_extract("measured row", $of)::DOUBLE AS value, d.kept
    FROM measured AS "measured row" JOIN decisions d USING (unit, row) LEFT JOIN steps USING (rule)
    WHERE (d.kept AND (SELECT position FROM place) IS NOT NULL) OR steps.position >= (SELECT position FROM place)
), counts AS (
    SELECT value, count(*) AS rows, sum(count(*)) OVER (ORDER BY value DESC) AS passed
    FROM reached
    WHERE isfinite(value)
    GROUP BY value
), chosen AS (
    SELECT max(value) AS threshold, min(passed) AS passed, arg_max(rows, value) AS rows FROM counts WHERE passed >= $rows
)
SELECT
    $of AS measure, threshold, (SELECT count(*) FROM reached) AS reached, passed, passed - rows AS above,
    passed / (SELECT sum(rows) FROM counts) AS top
FROM chosen;
