-- Image formats and file sizes, in the pool and in the kept set.
-- theme: Images
-- column: format        the format that the bytes are in; null where there is no image, or an unreadable one
-- column: pool          samples
-- column: kept          samples kept
-- column: median_bytes  of an image of the pool
-- column: kept_bytes    of all kept images together
SELECT
    format,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    median(bytes) AS median_bytes,
    coalesce(sum(bytes) FILTER (kept), 0) AS kept_bytes
FROM verdicts
GROUP BY format
ORDER BY pool DESC, format;
