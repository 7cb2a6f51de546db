-- The $top entries of a language that had the most rows when balancing began.
SELECT entry, {'count': survivors, 'length': survivors / max(survivors) OVER (), 'style': 'pool'} AS "at balance",
    {'count': kept, 'length': kept / max(survivors) OVER ()} AS kept, probability::DECIMAL(18, 4) AS probability
FROM entries
WHERE language = $language AND survivors > 0
ORDER BY survivors DESC, entry
LIMIT $top
