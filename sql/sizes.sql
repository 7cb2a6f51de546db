-- Widths and heights of the images, in the pool and in the kept set.
-- theme: Images
-- param: step = 128 [positive] pixels per bucket
-- column: pixels_from   the bucket holds sides of at least so many pixels
-- column: pixels_below  and fewer than so many
-- column: width_pool    samples of such a width
-- column: width_kept    of those, kept
-- column: height_pool   samples of such a height
-- column: height_kept   of those, kept
WITH sides AS (
    SELECT unnest([width, height]) AS side, unnest(['w', 'h']) AS which, kept
    FROM verdicts
    WHERE width IS NOT NULL AND height IS NOT NULL
)
SELECT
    (side // $step) * $step AS pixels_from,
    pixels_from + $step AS pixels_below,
    count(*) FILTER (which = 'w') AS width_pool,
    count(*) FILTER (which = 'w' AND kept) AS width_kept,
    count(*) FILTER (which = 'h') AS height_pool,
    count(*) FILTER (which = 'h' AND kept) AS height_kept
FROM sides
GROUP BY pixels_from
ORDER BY pixels_from;
