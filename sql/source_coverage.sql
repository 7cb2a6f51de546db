-- How many entries each source covers, and how many of them no other source covers.
-- theme: Entries and balancing
-- column: source        name of the source
-- column: entries_pool  number of entries that samples of the source match
-- column: entries_kept  number of entries that kept samples of the source match
-- column: only_pool     number of entries in the pool that only samples of this source match
-- column: only_kept     number of entries in the kept set that only samples of this source match
-- column: matches_pool  number of matches of the source's samples; a sample counts once for each entry that it matches
-- column: matches_kept  number of matches of the source's kept samples
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
