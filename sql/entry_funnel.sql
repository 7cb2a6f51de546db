-- For the samples that match one entry: how many of them each rule dropped.
-- theme: Entries and balancing
-- param: entry            the entry, as written in the metadata
-- param: language = null  language of the entry; null: any
-- column: rule     the step, as in `funnel`
-- column: rows     number of matching samples: for `pool`, those in the pool; for `kept`, those that were kept; for any other step, those that it dropped
-- column: share    rows / all samples that match the entry
-- column: overall  the same share for the whole pool
WITH found AS (
    SELECT d.rule, count(*) AS rows
    FROM matches m JOIN decisions d USING (unit, row)
    WHERE list_has_any(m.entry_ids, (SELECT list(entry_id) FROM entries WHERE entry = $entry AND ($language IS NULL OR language = $language)))
    GROUP BY d.rule
), counts AS (
    SELECT
        f.position, f.rule, f.rows AS of_all, (SELECT coalesce(sum(rows), 0) FROM found) AS pool,
        CASE f.kind
            WHEN 'pool' THEN (SELECT coalesce(sum(rows), 0) FROM found)
            WHEN 'kept' THEN coalesce((SELECT rows FROM found WHERE rule IS NULL), 0)
            ELSE coalesce((SELECT rows FROM found WHERE found.rule = f.rule), 0)
        END AS rows
    FROM funnel f
)
SELECT rule, rows, rows / nullif(pool, 0) AS share, of_all / nullif((SELECT max(rows) FROM funnel WHERE kind = 'pool'), 0) AS overall
FROM counts
ORDER BY position;
