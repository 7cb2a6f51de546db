-- Quantiles of a number, such as a score, by group, in the pool and in the kept set.
-- Each quantile is a value that occurs in the data (DuckDB's quantile_disc). A truncated image has a width and a
-- height, but no score.
-- theme: Scores and thresholds
-- param: of = null [number of measured]    the number to look at; null: the first score that a rule names, otherwise `clip_score`
-- param: by = source [column of verdicts]  column that defines the groups, such as source, language, rule, or kept
-- column: measure      name of the number
-- column: group        the group: a value of the column `by`
-- column: pool         number of samples in the group that have the number
-- column: kept         number of these samples that were kept
-- column: mean         mean of all samples in the group
-- column: kept_mean    mean of the kept samples
-- column: p05          5th percentile of all samples in the group
-- column: median       median of all samples in the group
-- column: p95          95th percentile of all samples in the group
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
