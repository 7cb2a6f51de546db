-- The $top entries whose share of all matches grew most, or shrank most.
SELECT entry, if($balanced, survivors, pool) AS before, kept, before / $matches AS old, kept / $matches_kept AS new
FROM entries
WHERE pool > 0 AND if($gained, new > old, new < old)
ORDER BY if($gained, old - new, new - old), entry
LIMIT $top
