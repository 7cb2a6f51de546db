-- How many samples of each source were found, dropped, and kept.
-- theme: Overview
-- column: source      name of the source
-- column: pool        number of samples found
-- column: failed      number of samples that could not be read
-- column: dropped     number of samples that a rule, deduplication, or a selection dropped
-- column: kept        number of samples that were kept
-- column: rate        kept / pool
-- column: kept_share  kept / all kept samples of the run
SELECT
    source, pool, failed, dropped, kept,
    kept / nullif(pool, 0) AS rate,
    kept / nullif(sum(kept) OVER (), 0) AS kept_share
FROM sources
ORDER BY position;
