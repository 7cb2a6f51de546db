-- The most frequent entries, and how far balancing sampled them down.
-- Samples that could not be read or downloaded match nothing.
-- theme: Entries and balancing
-- param: limit = 20                          how many
-- param: by = survivors [number of entries]  the order: pool, survivors, expected or kept, the largest first
-- column: entry        the entry
-- column: pool         rows of the pool that match it
-- column: survivors    of those, the rows that were left when balancing began
-- column: probability  of the draw for one row and this entry
-- column: expected     rows expected to be kept, by this entry or another one
-- column: kept         rows kept
-- column: thinned_to   kept, as a share of the survivors
SELECT entry, pool, survivors, probability, expected, kept, kept / nullif(survivors, 0) AS thinned_to
FROM entries AS "entry row"
WHERE pool > 0
ORDER BY struct_extract("entry row", $by) DESC, survivors DESC, pool DESC, entry
LIMIT $limit;
