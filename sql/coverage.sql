-- How much of the metadata the pool and the kept set cover, and what is not downsampled.
-- Entries with at most t rows are not downsampled; the tail of `balance.tail_share` has fewer than t. Samples that
-- could not be read match nothing.
-- theme: Entries and balancing
-- column: entries           entries in the metadata
-- column: in_pool           entries that occur in the pool
-- column: in_survivors      entries that occurred when balancing began
-- column: in_kept           entries that occur in the kept set
-- column: lost              entries that occurred when balancing began but not in the kept set
-- column: head              entries that balancing downsamples
-- column: whole             entries that occur and are not downsampled
-- column: whole_share       their share of all matches when balancing began
-- column: whole_share_kept  their share of all matches in the kept set
SELECT
    count(*) AS entries,
    count(*) FILTER (pool > 0) AS in_pool,
    count(*) FILTER (survivors > 0) AS in_survivors,
    count(*) FILTER (kept > 0) AS in_kept,
    count(*) FILTER (survivors > 0 AND kept = 0) AS lost,
    count(*) FILTER (probability < 1) AS head,
    count(*) FILTER (probability = 1 AND survivors > 0) AS whole,
    sum(survivors) FILTER (probability = 1) / nullif(sum(survivors), 0) AS whole_share,
    sum(kept) FILTER (probability = 1) / nullif(sum(kept), 0) AS whole_share_kept
FROM entries;
