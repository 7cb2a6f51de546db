-- The $top entries of a language with the most rows when balancing began.
SELECT entry, survivors, probability, kept
FROM entries
WHERE language = $language AND survivors > 0
ORDER BY survivors DESC, entry
LIMIT $top
