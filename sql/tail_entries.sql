-- The rarest entries that occur in the pool, and whether the kept set still has them.
-- theme: Entries and balancing
-- param: limit = 20  maximum number of rows
-- column: entry      the entry
-- column: pool       pool rows that match it
-- column: survivors  matching rows left when balancing began
-- column: kept       matching rows kept; below `survivors` only if balancing downsamples the entry
-- column: lost       whether none was kept
SELECT entry, pool, survivors, kept, kept = 0 AS lost
FROM entries
WHERE pool > 0
ORDER BY pool, survivors, entry
LIMIT $limit;
