-- How often each metadata entry occurs: in the pool, before balancing, and kept.
-- In the order of the metadata, by entry_id.
-- Samples that could not be read or downloaded match nothing.
-- theme: Entries and balancing
-- param: like = '%'   SQL pattern of entries (% any text, _ any character; case-sensitive)
-- param: min_pool = 1 minimum number of matching rows in the pool
-- param: limit = null how many
-- column: entry_id     its position in the metadata
-- column: entry        its text
-- column: source       its source in the metadata
-- column: language     its language
-- column: pool         rows of the pool that match it
-- column: survivors    of those, the rows that were left when balancing began
-- column: probability  of the draw for one row and this entry: t / max(survivors, t)
-- column: expected     matching rows expected to be kept
-- column: kept         matching rows kept
SELECT entry_id, entry, source, language, pool, survivors, probability, expected, kept
FROM entries
WHERE entry LIKE $like AND pool >= $min_pool
ORDER BY entry_id
LIMIT $limit;
