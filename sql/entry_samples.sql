-- Samples that match an entry of the metadata, kept ones first.
-- theme: Samples to look at
-- param: entry            the entry, as written in the metadata
-- param: language = null  language of the entry; null: any
-- param: limit = 20       maximum number of rows
-- column: uid          uid of the sample
-- column: kept         whether the sample was kept
-- column: rule         the step that dropped the sample; null if it was kept
-- column: probability  probability that the selection keeps the sample, computed when balancing began
-- column: entries      number of entries that the sample matches
-- column: caption      caption of the sample
-- column: url          URL of the sample
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
