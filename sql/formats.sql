-- Image formats and file sizes, in the pool and in the kept set.
-- theme: Images
-- column: format        format by content, also of truncated images; null without an image, or if the caption failed
-- column: pool          samples
-- column: kept          kept samples
-- column: median_bytes  median image size in the pool
-- column: kept_bytes    total size of all kept images
SELECT
    format,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    median(bytes) AS median_bytes,
    coalesce(sum(bytes) FILTER (kept), 0) AS kept_bytes
FROM verdicts
GROUP BY format
ORDER BY pool DESC, format;
