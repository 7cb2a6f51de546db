-- All columns of one sample. If the pool has its uid several times, there are several rows.
-- theme: Samples to look at
-- param: uid  uid of the sample (32 hex digits)
-- column: entries  metadata entries that the sample matches
-- column: *        all columns of the tables samples, decisions, and scores
WITH wanted AS (SELECT unit, row FROM samples WHERE uid = lower($uid))
SELECT
    v.*,
    coalesce((
        SELECT list(e.entry ORDER BY e.entry_id)
        FROM (SELECT m.unit, m.row, unnest(m.entry_ids) AS entry_id FROM matches m SEMI JOIN wanted USING (unit, row)) m
        JOIN entries e USING (entry_id)
        WHERE m.unit = v.unit AND m.row = v.row
    ), []) AS entries
FROM verdicts v
SEMI JOIN wanted USING (unit, row)
ORDER BY v.unit, v.row;
