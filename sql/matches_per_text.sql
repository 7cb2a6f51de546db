-- Histogram of entries per caption: in the pool, before balancing, and in the kept set.
-- theme: Entries and balancing
-- column: entries    number of entries that a caption matches
-- column: pool       number of readable captions in the pool with this many entries
-- column: survivors  number of these captions left when balancing began
-- column: kept       number of these captions that were kept
SELECT
    coalesce(len(m.entry_ids), 0) AS entries,
    count(*) AS pool,
    count(*) FILTER (d.kept OR d.rule IN ('balance', 'sample', 'other_text')) AS survivors,
    count(*) FILTER (d.kept) AS kept
FROM matches m JOIN decisions d USING (unit, row)
WHERE d.rule IS DISTINCT FROM 'failed'
GROUP BY entries
ORDER BY entries;
