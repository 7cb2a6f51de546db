-- The threshold at which a given number of samples pass, for a score or another number.
-- The query counts only samples that reach one rule (see the parameter `rule`). Samples with equal values pass
-- together, so `passed` may be larger than the parameter `rows`. Later steps drop more samples: use `curate whatif` to
-- get the final counts.
-- theme: Scores and thresholds
-- param: of = null [number of measured]  the number to look at; null: the first score that a rule names, otherwise `clip_score`
-- param: rule = null [rule]              count the samples that reach this rule; null: the first rule whose expression names the number. If no rule names it, count the samples that pass all rules
-- param: rows = 1000 [positive]          how many samples should pass
-- column: measure    name of the number
-- column: threshold  the highest threshold that at least `rows` samples pass; null if there are too few samples
-- column: reached    number of samples that reach the rule
-- column: passed     number of samples at or above the threshold
-- column: above      number of samples above the threshold. With the next higher threshold, only these pass.
-- column: top        passed / number of samples that have the number. You can use it as `top` in a rule.
-- column: rule       the rule; null if the samples that pass all rules are counted
WITH steps AS (
    SELECT rule, position FROM funnel WHERE kind = 'drop'
), naming AS (
    SELECT name FROM rules WHERE list_contains(regexp_extract_all(lower(expression), '\w+'), lower($of))
), place AS (
    SELECT
        coalesce($rule, min_by(rule, position) FILTER (rule IN (FROM naming))) AS rule,
        coalesce(
            min(position) FILTER (rule = $rule),
            min(position) FILTER (rule IN (FROM naming)),
            max(position) FILTER (rule = 'failed' OR rule IN (SELECT name FROM rules)) + 1
        ) AS position
    FROM steps
), reached AS MATERIALIZED (
    SELECT struct_extract("measured row", $of) AS value, d.kept
    FROM measured AS "measured row" JOIN decisions d USING (unit, row) LEFT JOIN steps USING (rule)
    WHERE d.kept OR steps.position >= (SELECT position FROM place)
), counts AS (
    SELECT value, count(*) AS rows, sum(count(*)) OVER (ORDER BY value DESC) AS passed
    FROM reached
    WHERE isfinite(value::DOUBLE)
    GROUP BY value
), chosen AS (
    SELECT max(value) AS threshold, min(passed) AS passed, arg_max(rows, value) AS rows FROM counts WHERE passed >= $rows
)
SELECT
    $of AS measure, threshold, (SELECT count(*) FROM reached) AS reached, passed, passed - rows AS above,
    passed / (SELECT sum(rows) FROM counts) AS top, (SELECT rule FROM place) AS rule
FROM chosen;
