-- Entries per caption: in the pool, before balancing and in the kept set.
-- theme: Entries and balancing
-- column: entries    entries that the caption matches
-- column: pool       captions of the pool that could be read
-- column: survivors  of those, left when balancing began
-- column: kept       of those, kept
SELECT
    coalesce(len(m.entry_ids), 0) AS entries,
    count(*) AS pool,
    count(*) FILTER (d.kept OR d.rule IN ('balance', 'sample', 'other_text')) AS survivors,
    count(*) FILTER (d.kept) AS kept
FROM matches m JOIN decisions d USING (unit, row)
WHERE d.rule IS DISTINCT FROM 'failed'
GROUP BY entries
ORDER BY entries;
