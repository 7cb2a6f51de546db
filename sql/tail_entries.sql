-- The rarest entries that occur at all, and whether the kept set still has them.
-- theme: Concepts and balancing
-- param: limit = 20  how many
-- column: entry      the entry
-- column: pool       rows of the pool that match it
-- column: survivors  of those, the rows that were left when balancing began
-- column: kept       rows kept; less than `survivors` only where balancing thinned the entry
-- column: lost       whether rules or deduplication left none of them
SELECT entry, pool, survivors, kept, kept = 0 AS lost
FROM entries
WHERE pool > 0
ORDER BY pool, survivors, entry
LIMIT $limit;
