-- Histogram of widths, heights, and shorter sides, in the pool and in the kept set.
-- To choose a threshold for min_side, use a smaller step, or `score_histogram --param of=min_side`.
-- theme: Images
-- param: step = 128 [positive]  width of a bucket in pixels
-- column: pixels_from    lower end of the bucket
-- column: pixels_below   upper end of the bucket, excluded
-- column: width_pool     number of samples whose width is in the bucket
-- column: width_kept     number of these samples that were kept
-- column: height_pool    number of samples whose height is in the bucket
-- column: height_kept    number of these samples that were kept
-- column: min_side_pool  number of samples whose shorter side is in the bucket
-- column: min_side_kept  number of these samples that were kept
WITH sides AS (
    SELECT unnest([width, height, min_side]) AS side, unnest(['w', 'h', 'm']) AS which, kept
    FROM verdicts
    WHERE width IS NOT NULL AND height IS NOT NULL
)
SELECT
    (side // $step) * $step AS pixels_from,
    pixels_from + $step AS pixels_below,
    count(*) FILTER (which = 'w') AS width_pool,
    count(*) FILTER (which = 'w' AND kept) AS width_kept,
    count(*) FILTER (which = 'h') AS height_pool,
    count(*) FILTER (which = 'h' AND kept) AS height_kept,
    count(*) FILTER (which = 'm') AS min_side_pool,
    count(*) FILTER (which = 'm' AND kept) AS min_side_kept
FROM sides
GROUP BY pixels_from
ORDER BY pixels_from;
