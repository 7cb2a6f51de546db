-- The most frequent entries, and what share of their rows balancing kept.
-- Samples that could not be read match no entry.
-- theme: Entries and balancing
-- param: limit = 20                          maximum number of rows
-- param: by = survivors [number of entries]  sort by this count, largest first: pool, survivors, expected, or kept
-- column: entry        the metadata entry
-- column: pool         number of pool rows that match the entry
-- column: survivors    number of matching rows left when balancing began
-- column: probability  probability that balancing keeps a row because of this entry
-- column: expected     number of matching rows that balancing is expected to keep, because of this entry or another
-- column: kept         number of matching rows that were kept
-- column: thinned_to   kept / survivors
SELECT entry, pool, survivors, probability, expected, kept, kept / nullif(survivors, 0) AS thinned_to
FROM entries AS "entry row"
WHERE pool > 0
ORDER BY struct_extract("entry row", $by) DESC, survivors DESC, pool DESC, entry
LIMIT $limit;
