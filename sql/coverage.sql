-- How many metadata entries occur in the pool and in the kept set; how many keep all rows.
-- Balancing does not downsample an entry with at most t rows. An entry of the tail has fewer than t rows (see
-- `balance.tail_share`). Samples that could not be read match no entry.
-- theme: Entries and balancing
-- column: entries           number of entries in the metadata
-- column: in_pool           number of entries that occur in the pool
-- column: in_survivors      number of entries that occur in the samples left when balancing began
-- column: in_kept           number of entries that occur in the kept set
-- column: lost              number of entries that occurred when balancing began but do not occur in the kept set
-- column: head              number of entries that balancing downsamples
-- column: whole             number of entries that occurred when balancing began and that balancing does not downsample
-- column: whole_share       share of all matches that belonged to these entries when balancing began
-- column: whole_share_kept  share of all matches in the kept set that belong to these entries
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
