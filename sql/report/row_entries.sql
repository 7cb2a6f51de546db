-- The entries that a row matches, the rarest first.
SELECT e.entry, e.language, e.pool, e.survivors, e.probability AS p
FROM entries e
JOIN (SELECT unnest(entry_ids) AS entry_id FROM matches WHERE unit = $unit AND row = $row) USING (entry_id)
ORDER BY e.probability DESC, e.survivors, e.entry
