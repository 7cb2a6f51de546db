-- Samples found, dropped and kept by source.
-- theme: Overview
-- column: source    the source's name in the recipe
-- column: pool      samples found
-- column: failed    samples that could not be read
-- column: dropped   samples that a rule, deduplication or balancing dropped
-- column: kept      samples kept
-- column: rate      kept, as a share of the pool
-- column: kept_share  share of the kept set
SELECT
    source, pool, failed, dropped, kept,
    kept / nullif(pool, 0) AS rate,
    kept / nullif(sum(kept) OVER (), 0) AS kept_share
FROM sources
ORDER BY position;
