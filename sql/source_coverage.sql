-- Entries that each source covers, before and after, and those that no other source has.
-- theme: Entries and balancing
-- column: source        source name
-- column: entries_pool  entries that its samples match
-- column: entries_kept  entries that its kept samples match
-- column: only_pool     entries in entries_pool that no other source matches
-- column: only_kept     entries in entries_kept that no other source's kept samples match
-- column: matches_pool  matches of its samples; a sample counts once per entry
-- column: matches_kept  matches of its kept samples
WITH counts AS (
    SELECT u.source, m.entry_id, count(*) AS pool, count(*) FILTER (d.kept) AS kept
    FROM matched m
    JOIN decisions d USING (unit, row)
    JOIN (SELECT unit, any_value(source) AS source FROM samples GROUP BY unit) u USING (unit)
    WHERE d.rule IS DISTINCT FROM 'failed'
    GROUP BY ALL
), compared AS (
    SELECT
        *, count(*) OVER of_entry AS sources, count(*) FILTER (kept > 0) OVER of_entry AS sources_kept
    FROM counts
    WINDOW of_entry AS (PARTITION BY entry_id)
)
SELECT
    s.source,
    count(c.entry_id) AS entries_pool,
    count(*) FILTER (c.kept > 0) AS entries_kept,
    count(*) FILTER (sources = 1) AS only_pool,
    count(*) FILTER (sources_kept = 1 AND c.kept > 0) AS only_kept,
    coalesce(sum(c.pool), 0) AS matches_pool,
    coalesce(sum(c.kept), 0) AS matches_kept
FROM sources s LEFT JOIN compared c USING (source)
GROUP BY s.source, s.position
ORDER BY s.position;
