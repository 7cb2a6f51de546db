-- How wide or tall the images are, in the pool and in the kept set.
-- theme: Images
-- column: shape          range of width / height
-- column: pool           number of samples in the pool
-- column: kept           number of samples that were kept
-- column: rate           kept / pool
-- column: median_pixels  median of width × height over the pool
SELECT
    CASE
        WHEN width * 3 < height THEN 'below 1:3'
        WHEN width * 2 < height THEN '1:3 to 1:2'
        WHEN width * 4 < height * 3 THEN '1:2 to 3:4'
        WHEN width * 3 <= height * 4 THEN '3:4 to 4:3'
        WHEN width <= height * 2 THEN '4:3 to 2:1'
        WHEN width <= height * 3 THEN '2:1 to 3:1'
        ELSE 'above 3:1'
    END AS shape,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    count(*) FILTER (kept) / count(*) AS rate,
    median(width::BIGINT * height) AS median_pixels
FROM verdicts
WHERE width > 0 AND height > 0
GROUP BY shape
ORDER BY min(width / height);
