-- Histogram of a number, such as a score: in the pool, before balancing, kept, and dropped.
-- theme: Scores and thresholds
-- param: of = null [number of measured]  the number to look at; null: the first score that a rule names, otherwise `clip_score`
-- param: buckets = 20 [positive]         number of buckets. They have the same width and cover all values from the lowest to the highest.
-- column: measure    name of the number
-- column: from       lower end of the bucket
-- column: below      upper end of the bucket. It is excluded from the bucket, except in the last row.
-- column: pool       number of samples in the pool
-- column: survivors  number of samples left when balancing began
-- column: kept       number of samples that were kept
-- column: dropped    number of samples in the bucket that were not kept
-- column: rate       kept / pool
WITH seen AS MATERIALIZED (
    SELECT struct_extract("measured row", $of)::DOUBLE AS value, d.kept, d.kept OR d.rule IN ('balance', 'sample', 'other_text') AS survived
    FROM measured AS "measured row" JOIN decisions d USING (unit, row)
), bounds AS (
    SELECT min(value) AS least, max(value) AS greatest, (greatest - least) / $buckets AS width
    FROM seen
    WHERE isfinite(value)
), counts AS (
    SELECT
        coalesce(least($buckets - 1, floor((value - least) / nullif(width, 0)))::INTEGER, 0) AS bucket,
        count(*) AS pool,
        count(*) FILTER (survived) AS survivors,
        count(*) FILTER (kept) AS kept
    FROM seen, bounds
    WHERE isfinite(value)
    GROUP BY bucket
)
SELECT
    $of AS measure,
    least + n * width AS "from",
    least + (n + 1) * width AS below,
    coalesce(c.pool, 0) AS pool,
    coalesce(c.survivors, 0) AS survivors,
    coalesce(c.kept, 0) AS kept,
    coalesce(c.pool - c.kept, 0) AS dropped,
    c.kept / c.pool AS rate
FROM bounds, range($buckets) AS r(n) LEFT JOIN counts c ON c.bucket = n
WHERE least IS NOT NULL AND (width > 0 OR n = 0)
ORDER BY n;
