-- Number of kept rows by entry, and how many of them only this run keeps.
SELECT e.entry AS name, sum(e.kept)::BIGINT AS kept, coalesce(sum(c.rows), 0)::BIGINT AS changed
FROM entries e LEFT JOIN (
    SELECT entry_id, count(*) AS rows
    FROM (
        SELECT unnest(entry_ids) AS entry_id FROM matches
        SEMI JOIN (SELECT unit, row FROM decisions SEMI JOIN only_here USING (uid) WHERE kept) USING (unit, row)
    )
    GROUP BY entry_id
) c USING (entry_id)
WHERE e.kept > 0
GROUP BY e.entry
