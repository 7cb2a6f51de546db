-- The most frequent entries, and how far balancing downsampled them.
-- Samples that could not be read match nothing.
-- theme: Entries and balancing
-- param: limit = 20                          maximum number of rows
-- param: by = survivors [number of entries]  order, largest first: pool, survivors, expected or kept
-- column: entry        the entry
-- column: pool         pool rows that match it
-- column: survivors    matching rows left when balancing began
-- column: probability  chance of one draw for one row and this entry
-- column: expected     rows expected to be kept, by this entry or another
-- column: kept         matching rows kept
-- column: thinned_to   kept / survivors
SELECT entry, pool, survivors, probability, expected, kept, kept / nullif(survivors, 0) AS thinned_to
FROM entries AS "entry row"
WHERE pool > 0
ORDER BY struct_extract("entry row", $by) DESC, survivors DESC, pool DESC, entry
LIMIT $limit;
