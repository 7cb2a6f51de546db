-- How often each metadata entry occurs: in the pool, before balancing, and kept.
-- theme: Concepts and balancing
-- param: like = '%'   entries like this pattern (% any text, _ any character; upper and lower case differ)
-- param: min_pool = 1 entries that at least so many rows of the pool match
-- param: limit = null how many; null is all
-- column: entry_id     its position in the metadata
-- column: entry        its text
-- column: source       where the metadata has it from
-- column: language     its language
-- column: pool         rows of the pool that match it
-- column: survivors    of those, the rows that were left when balancing began
-- column: probability  of the draw for one row and this entry: t / max(survivors, t)
-- column: expected     rows that match it and are expected to be kept
-- column: kept         rows that match it and are kept
SELECT entry_id, entry, source, language, pool, survivors, probability, expected, kept
FROM entries
WHERE entry LIKE $like AND pool >= $min_pool
ORDER BY entry_id
LIMIT $limit;
