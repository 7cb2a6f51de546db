-- How many samples match each metadata entry: in the pool, before balancing, and kept.
-- Rows are in the order of the metadata. Samples that could not be read match no entry.
-- theme: Entries and balancing
-- param: like = '%'    show only entries that match this SQL pattern (% is any text, _ is any character; case-sensitive)
-- param: min_pool = 1  leave out entries that match fewer pool rows than this
-- param: limit = null  maximum number of rows
-- column: entry_id     position of the entry in the metadata
-- column: entry        the metadata entry
-- column: source       source of the entry in the metadata
-- column: language     language of the entry
-- column: pool         number of pool rows that match the entry
-- column: survivors    number of matching rows left when balancing began
-- column: probability  probability that balancing keeps a row because of this entry: t / max(survivors, t)
-- column: expected     number of matching rows that balancing is expected to keep
-- column: kept         number of matching rows that were kept
SELECT entry_id, entry, source, language, pool, survivors, probability, expected, kept
FROM entries
WHERE entry LIKE $like AND pool >= $min_pool
ORDER BY entry_id
LIMIT $limit;
