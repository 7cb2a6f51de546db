-- Files that could not be read, entirely or in part, by reason.
SELECT reason, count AS files, kind AS what, meaning, detail AS example
FROM {failures}
WHERE kind <> 'sample'
ORDER BY what DESC, files DESC, reason
LIMIT 40
