-- Captions of the pool and kept ones by how many entries they match, $longest and more together.
SELECT least(entries, $longest) AS n, sum(pool)::BIGINT AS before, sum(kept)::BIGINT AS after
FROM {matches_per_text}
GROUP BY n
ORDER BY n
