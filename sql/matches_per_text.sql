-- Entries per caption: in the pool, before balancing and in the kept set.
-- theme: Entries and balancing
-- column: entries    number of entries that a caption matches
-- column: pool       readable captions in the pool
-- column: survivors  captions left when balancing began
-- column: kept       kept captions
SELECT
    coalesce(len(m.entry_ids), 0) AS entries,
    count(*) AS pool,
    count(*) FILTER (d.kept OR d.rule IN ('balance', 'sample', 'other_text')) AS survivors,
    count(*) FILTER (d.kept) AS kept
FROM matches m JOIN decisions d USING (unit, row)
WHERE d.rule IS DISTINCT FROM 'failed'
GROUP BY entries
ORDER BY entries;
