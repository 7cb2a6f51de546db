-- How many samples would pass at other thresholds of a score or another number.
-- The query counts only samples that reach one rule (see the parameter `rule`). It does not consider how a threshold
-- changes later steps: use `curate whatif` to get the final counts.
-- theme: Scores and thresholds
-- param: of = null [number of measured]  the number to look at; null: the first score that a rule names, otherwise `clip_score`
-- param: rule = null [rule]              count the samples that reach this rule; null: the first rule whose expression names the number. If no rule names it, count the samples that pass all rules
-- param: at = null [numbers]             thresholds, such as '0.2 0.25 0.3'; null: the 10th, 20th, … 90th percentile of these samples
-- column: measure      name of the number
-- column: threshold    the threshold
-- column: reached      number of samples that reach the rule
-- column: passed       number of samples at or above the threshold
-- column: share        passed / reached
-- column: kept_in_run  number of samples at or above the threshold that this run kept
-- column: rule         the rule; null if the samples that pass all rules are counted
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
    SELECT struct_extract("measured row", $of)::DOUBLE AS value, typeof(struct_extract("measured row", $of)) = 'FLOAT' AS single, d.kept
    FROM measured AS "measured row" JOIN decisions d USING (unit, row) LEFT JOIN steps USING (rule)
    WHERE d.kept OR steps.position >= (SELECT position FROM place)
), cuts AS (
    SELECT DISTINCT unnest(CASE
        WHEN $at IS NULL THEN (SELECT quantile_disc(value, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) FROM reached WHERE isfinite(value))
        ELSE regexp_extract_all($at::VARCHAR, '[^\s,;]+')::DOUBLE[]
    END) AS threshold
), counts AS (
    SELECT c.threshold, count(*) AS passed, count(*) FILTER (r.kept) AS kept_in_run
    FROM cuts c JOIN reached r ON r.value >= CASE WHEN r.single THEN c.threshold::FLOAT::DOUBLE ELSE c.threshold END
    GROUP BY c.threshold
)
SELECT
    $of AS measure, threshold, (SELECT count(*) FROM reached) AS reached, coalesce(passed, 0) AS passed,
    coalesce(passed, 0) / nullif((SELECT count(*) FROM reached), 0) AS share, coalesce(kept_in_run, 0) AS kept_in_run,
    (SELECT rule FROM place) AS rule
FROM cuts LEFT JOIN counts USING (threshold)
ORDER BY threshold;
