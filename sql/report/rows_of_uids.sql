-- All rows of some uids, by uid. For each uid, a duplicate comes first, and a kept row last.
SELECT m.*, d.* EXCLUDE (unit, row, uid)
FROM measured m JOIN decisions d USING (unit, row)
WHERE m.uid IN (SELECT unnest($uids::VARCHAR[]))
ORDER BY m.uid, d.kept, d.rule IN (FROM later_rules), d.rule IS DISTINCT FROM 'duplicate', m.unit DESC, m.row DESC
