-- The rarest entries that occur in the pool, and how many of their rows were kept.
-- theme: Entries and balancing
-- param: limit = 20  maximum number of rows
-- column: entry      the metadata entry
-- column: pool       number of pool rows that match the entry
-- column: survivors  number of matching rows left when balancing began
-- column: kept       number of matching rows that were kept. It is lower than `survivors` only if balancing downsamples the entry.
-- column: lost       whether no matching row was kept
SELECT entry, pool, survivors, kept, kept = 0 AS lost
FROM entries
WHERE pool > 0
ORDER BY pool, survivors, entry
LIMIT $limit;
