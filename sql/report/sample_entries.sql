-- The $most rarest entries that some rows match, and how many entries each row matches.
SELECT m.unit, m.row, count(*) AS n,
    list({'entry': e.entry, 'n': e.survivors} ORDER BY e.survivors, e.entry)[1:$most] AS entries
FROM (
    SELECT unit, row, unnest(entry_ids) AS entry_id FROM matches
    SEMI JOIN (SELECT unnest($positions::STRUCT(unit INT, row INT)[], recursive := true)) USING (unit, row)
) m
JOIN entries e USING (entry_id)
GROUP BY m.unit, m.row
