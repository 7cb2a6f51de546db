-- Balancing by language of the metadata's entries: rows, head and tail, and t.
-- With `scheme: per_language` each language has a t of its own; else t is that of all. A sample that matches entries of several
-- languages is counted in each. A language of samples that has no entries is here too: nothing matches it. `in_pool`, head and tail are of entries that occur; all else about them is in `entries`.
-- theme: Entries and balancing
-- column: language    of entries or samples
-- column: samples     samples of the pool in this language: by `language_key` where there is one, else by code; null: none known
-- column: matched     samples of the pool that match an entry of the language
-- column: survivors   of those, left when balancing began
-- column: kept        of those, kept
-- column: entries     entries of the language
-- column: in_pool     of those, entries that occur in the pool
-- column: t           rows that an entry may have; null without balancing
-- column: head        entries with more matches than t, downsampled
-- column: tail        entries with fewer matches than t
-- column: matches     matches of samples left when balancing began; a sample may have several
-- column: tail_share  the tail's share of those
-- column: kept_share  the language's share of all kept samples
WITH limits AS (
    SELECT key AS language, value::BIGINT AS own FROM json_each((SELECT value FROM run WHERE key = 't_by_language'))
), limited AS (
    SELECT entries.*, coalesce(own, (SELECT value::BIGINT FROM run WHERE key = 't')) AS t
    FROM entries LEFT JOIN limits USING (language)
), entries_of AS (
    SELECT
        language,
        any_value(t) AS t,
        count(*) AS entries,
        count(*) FILTER (pool > 0) AS in_pool,
        count(*) FILTER (survivors > t) AS head,
        count(*) FILTER (survivors BETWEEN 1 AND t - 1) AS tail,
        sum(survivors)::BIGINT AS matches,
        CASE WHEN any_value(t) IS NOT NULL THEN
            coalesce(sum(survivors) FILTER (survivors < t), 0) / nullif(sum(survivors), 0) END AS tail_share
    FROM limited
    GROUP BY language
), rows_of AS (
    SELECT
        language,
        count(*) AS matched,
        count(*) FILTER (kept OR rule IN ('balance', 'sample', 'other_text')) AS survivors,
        count(*) FILTER (kept) AS kept
    FROM (SELECT DISTINCT unit, row, language FROM matched JOIN entries USING (entry_id)) JOIN decisions USING (unit, row)
    GROUP BY language
), samples_of AS (  -- by `language_key`, where matching goes by language, else by `language`
    SELECT names[-1] AS language, count(*) AS samples
    FROM (SELECT list_value(*COLUMNS('^language(_key)?$')) AS names FROM measured)
    GROUP BY language
)
SELECT
    language, coalesce(samples, 0) AS samples, coalesce(matched, 0) AS matched, coalesce(survivors, 0) AS survivors, coalesce(kept, 0) AS kept,
    coalesce(entries, 0) AS entries, coalesce(in_pool, 0) AS in_pool, t, head, tail, coalesce(matches, 0) AS matches, tail_share,
    coalesce(kept, 0) / nullif((SELECT count(*) FILTER (kept) FROM decisions), 0) AS kept_share
FROM entries_of FULL JOIN (FROM samples_of WHERE language IS NOT NULL) USING (language) LEFT JOIN rows_of USING (language)
WHERE EXISTS (FROM entries)
ORDER BY matches DESC, matched DESC, language;
