-- The samples that only one of two runs keeps, from the run that keeps them.
SELECT $side AS side, uid, r.rule, r.value, r.duplicate_of, source, language, url, caption
FROM kept JOIN reasons r USING (uid)
ORDER BY uid
LIMIT $limit
