-- Number of captions in the pool and kept, by the number of entries that they match; $longest and more are added up.
SELECT least(entries, $longest) AS n, sum(pool)::BIGINT AS before, sum(kept)::BIGINT AS after
FROM {matches_per_text}
GROUP BY n
ORDER BY n
