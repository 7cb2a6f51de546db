-- The most frequent entries of the pool that no kept sample matches.
SELECT entry, pool, survivors AS "left before balancing"
FROM entries
WHERE pool > 0 AND kept = 0
ORDER BY pool DESC, entry
LIMIT 10
