-- How often each metadata entry occurs: in the pool, before balancing, and kept.
-- In the order of the metadata. Samples that could not be read match nothing.
-- theme: Entries and balancing
-- param: like = '%'    SQL pattern for entries (% any text, _ any character; case-sensitive)
-- param: min_pool = 1  minimum number of matching rows in the pool
-- param: limit = null  maximum number of rows
-- column: entry_id     position in the metadata
-- column: entry        the entry
-- column: source       its source in the metadata
-- column: language     its language
-- column: pool         pool rows that match it
-- column: survivors    matching rows left when balancing began
-- column: probability  chance of one draw for one row and this entry: t / max(survivors, t)
-- column: expected     matching rows expected to be kept
-- column: kept         matching rows kept
SELECT entry_id, entry, source, language, pool, survivors, probability, expected, kept
FROM entries
WHERE entry LIKE $like AND pool >= $min_pool
ORDER BY entry_id
LIMIT $limit;
