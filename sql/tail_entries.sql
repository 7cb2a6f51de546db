-- The rarest entries that occur in the pool, and whether the kept set still has them.
-- theme: Entries and balancing
-- param: limit = 20  how many
-- column: entry      the entry
-- column: pool       rows of the pool that match it
-- column: survivors  of those, the rows that were left when balancing began
-- column: kept       rows kept; less than `survivors` only where balancing downsamples the entry
-- column: lost       whether none of them was kept
SELECT entry, pool, survivors, kept, kept = 0 AS lost
FROM entries
WHERE pool > 0
ORDER BY pool, survivors, entry
LIMIT $limit;
