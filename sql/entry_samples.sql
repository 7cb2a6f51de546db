-- Samples that match an entry of the metadata, kept ones first.
-- theme: Samples to look at
-- param: entry            the entry, as written in the metadata
-- param: language = null  its language; null: any
-- param: limit = 20       maximum number of rows
-- column: uid          the sample
-- column: kept         whether it is kept
-- column: rule         rule that dropped it
-- column: probability  probability of being kept when balancing began
-- column: entries      number of entries it matches
-- column: caption      its caption
-- column: url          its URL
WITH found AS MATERIALIZED (
    SELECT m.unit, m.row, len(m.entry_ids) AS entries, d.kept, d.rule, d.probability, d.uid
    FROM matches m JOIN decisions d USING (unit, row)
    WHERE list_has_any(m.entry_ids, (SELECT list(entry_id) FROM entries WHERE entry = $entry AND ($language IS NULL OR language = $language)))
    ORDER BY d.kept DESC, d.uid NULLS LAST, m.unit, m.row
    LIMIT $limit
)
SELECT f.uid, f.kept, f.rule, f.probability, f.entries, s.caption, s.url
FROM found f JOIN samples s USING (unit, row)
ORDER BY f.kept DESC, f.uid NULLS LAST, f.unit, f.row;
