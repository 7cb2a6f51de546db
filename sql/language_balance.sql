-- How balancing treated each language of the metadata: its rows, head, tail, and t.
-- With `scheme: per_language`, each language has its own t. Otherwise, all languages share one t. A sample that matches
-- entries in several languages counts in each of them. The query also lists languages that have samples but no entries.
-- No sample can match them.
-- theme: Entries and balancing
-- column: language    language of metadata entries, of samples, or both
-- column: samples     number of pool samples in this language, by the column `language_key` if there is one, otherwise by `language`; null if unknown
-- column: matched     number of pool samples that match an entry in the language
-- column: survivors   number of matched samples left when balancing began
-- column: kept        number of matched samples that were kept
-- column: entries     number of metadata entries in the language
-- column: in_pool     number of these entries that occur in the pool
-- column: t           threshold of balancing: entries with more matches are downsampled; null without balancing
-- column: head        number of entries with more than t matches, which balancing downsamples
-- column: tail        number of entries with at least one match but fewer than t
-- column: matches     matches of the samples left when balancing began; a sample counts once for each entry that it matches
-- column: tail_share  matches of tail entries / matches
-- column: kept_share  kept / all kept samples of the run
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
), samples_of AS (  -- by `language_key` if the run matches by language, else by `language`
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
