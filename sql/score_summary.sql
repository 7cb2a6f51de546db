-- Quantiles of a score, or any number, in each group, before and after.
-- theme: Scores and thresholds
-- param: of = null [number of measured]    the number; null is the score of the rules, else clip_score
-- param: by = source [column of verdicts]  groups, such as source, language, rule or kept
-- column: measure      the name of the number
-- column: group        the group
-- column: pool         samples that have the number
-- column: kept         of those, kept
-- column: pool_mean    mean of the pool
-- column: kept_mean    mean of the kept samples
-- column: pool_p05     5th percentile of the pool
-- column: pool_median  median of the pool
-- column: pool_p95     95th percentile of the pool
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
        avg(value) AS pool_mean,
        avg(value) FILTER (kept) AS kept_mean,
        quantile_disc(value, [0.05, 0.5, 0.95]) AS p,
        quantile_disc(value, [0.05, 0.5, 0.95]) FILTER (kept) AS k
    FROM seen
    WHERE isfinite(value)
    GROUP BY "group"
)
SELECT
    $of AS measure, "group", pool, kept, pool_mean, kept_mean,
    p[1] AS pool_p05, p[2] AS pool_median, p[3] AS pool_p95, k[1] AS kept_p05, k[2] AS kept_median, k[3] AS kept_p95
FROM quantiles
ORDER BY pool DESC, "group";
