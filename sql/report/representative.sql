-- The row that represents the duplicates with a uid.
FROM verdicts
WHERE uid = $uid AND (kept OR rule IN (FROM later_rules) OR rule = 'forgotten')
ORDER BY unit, row
LIMIT 1
