-- Quantiles of a score, or any number, by group, in the pool and in the kept set.
-- Quantiles are values that occur (DuckDB's quantile_disc). A truncated image has a width and a height but no score.
-- theme: Scores and thresholds
-- param: of = null [number of measured]    the number; null: the score in the rules, else clip_score
-- param: by = source [column of verdicts]  groups, such as source, language, rule or kept
-- column: measure      name of the number
-- column: group        the group
-- column: pool         samples of the group with the number
-- column: kept         kept samples among them
-- column: mean         mean of the group, kept or not
-- column: kept_mean    mean of the kept samples
-- column: p05          5th percentile of the group
-- column: median       median of the group
-- column: p95          95th percentile of the group
-- column: kept_p05     5th percentile of the kept samples
-- column: kept_median  median of the kept samples
-- column: kept_p95     95th percentile of the kept samples
WITH seen AS (
    SELECT struct_extract("sample row", $of)::DOUBLE AS value, struct_extract("sample row", $by) AS "group", "sample row".kept
    FROM verdicts AS "sample row"
), quantiles AS (
    SELECT
        "group",
        count(*) AS pool,
        count(*) FILTER (kept) AS kept,
        avg(value) AS mean,
        avg(value) FILTER (kept) AS kept_mean,
        quantile_disc(value, [0.05, 0.5, 0.95]) AS p,
        quantile_disc(value, [0.05, 0.5, 0.95]) FILTER (kept) AS k
    FROM seen
    WHERE isfinite(value)
    GROUP BY "group"
)
SELECT
    $of AS measure, "group", pool, kept, mean, kept_mean,
    p[1] AS p05, p[2] AS median, p[3] AS p95, k[1] AS kept_p05, k[2] AS kept_median, k[3] AS kept_p95
FROM quantiles
ORDER BY pool DESC, "group";
