-- Samples found, dropped and kept by source.
-- theme: Overview
-- column: source      source name
-- column: pool        samples found
-- column: failed      samples that could not be read
-- column: dropped     samples dropped by a rule, deduplication, or a selection
-- column: kept        kept samples
-- column: rate        kept / pool
-- column: kept_share  share of the kept set
SELECT
    source, pool, failed, dropped, kept,
    kept / nullif(pool, 0) AS rate,
    kept / nullif(sum(kept) OVER (), 0) AS kept_share
FROM sources
ORDER BY position;
