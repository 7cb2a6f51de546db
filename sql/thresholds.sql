-- How many samples would pass, for other thresholds of a score or number.
-- Counted at the position of the rule, over the samples that reach it. Later steps (other rules, deduplication, balance) would
-- change too; `curate whatif` computes that.
-- theme: Scores and thresholds
-- param: of = null [number of measured]  the number; null is the score of the rules, else clip_score
-- param: rule = null [rule]              the position: samples that reach this rule; null is samples that passed all rules
-- param: at = null [numbers]             thresholds, such as '0.2 0.25 0.3'; null is the deciles of the samples
-- column: measure    the number's name
-- column: threshold  the least value that passes
-- column: reached    samples that reach the position
-- column: passed     of those, at least at the threshold
-- column: share      passed, as a share of reached
-- column: kept       of those that pass, kept by this run
WITH steps AS (
    SELECT rule, position FROM funnel WHERE kind = 'drop'
), place AS (
    SELECT CASE
        WHEN $rule IS NOT NULL THEN (SELECT position FROM steps WHERE rule = $rule)
        ELSE (SELECT 1 + coalesce(max(s.position), 0) FROM steps s WHERE s.rule = 'failed' OR s.rule IN (SELECT name FROM rules))
    END AS position
), reached AS MATERIALIZED (
    SELECT struct_extract("measured row", $of)::DOUBLE AS value, typeof(struct_extract("measured row", $of)) = 'FLOAT' AS single, d.kept
    FROM measured AS "measured row" JOIN decisions d USING (unit, row) LEFT JOIN steps USING (rule)
    WHERE (d.kept AND (SELECT position FROM place) IS NOT NULL) OR steps.position >= (SELECT position FROM place)
), cuts AS (
    SELECT DISTINCT unnest(CASE
        WHEN $at IS NULL THEN (SELECT quantile_disc(value, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) FROM reached WHERE isfinite(value))
        ELSE regexp_extract_all($at::VARCHAR, '[^\s,;]+')::DOUBLE[]
    END) AS threshold
), counts AS (
    SELECT c.threshold, count(*) AS passed, count(*) FILTER (r.kept) AS kept
    FROM cuts c JOIN reached r ON r.value >= CASE WHEN r.single THEN c.threshold::FLOAT::DOUBLE ELSE c.threshold END
    GROUP BY c.threshold
)
SELECT
    $of AS measure, threshold, (SELECT count(*) FROM reached) AS reached, coalesce(passed, 0) AS passed,
    coalesce(passed, 0) / nullif((SELECT count(*) FROM reached), 0) AS share, coalesce(kept, 0) AS kept
FROM cuts LEFT JOIN counts USING (threshold)
ORDER BY threshold;
