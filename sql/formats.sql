-- Image formats and file sizes, in the pool and in the kept set.
-- theme: Images
-- column: format        detected from the bytes, of truncated images too; null without an image, and of rows that failed by their caption
-- column: pool          samples
-- column: kept          samples kept
-- column: median_bytes  median size of an image of the pool
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
