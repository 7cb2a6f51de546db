-- Image formats and file sizes, in the pool and in the kept set.
-- theme: Images
-- column: format        image format, detected from the bytes, even if the image is truncated; null if there is no image, or if the sample failed because of its caption
-- column: pool          number of samples in the pool
-- column: kept          number of samples that were kept
-- column: median_bytes  median image size in the pool, in bytes
-- column: kept_bytes    total size of all kept images, in bytes
SELECT
    format,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    median(bytes) AS median_bytes,
    coalesce(sum(bytes) FILTER (kept), 0) AS kept_bytes
FROM verdicts
GROUP BY format
ORDER BY pool DESC, format;
