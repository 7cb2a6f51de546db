-- The languages of each source, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- column: source      the source's name in the recipe
-- column: language    the code; null where none was measured
-- column: pool        samples
-- column: kept        samples kept
-- column: rate        kept, as a share of pool
-- column: pool_share  pool, as a share of the source's samples
-- column: kept_share  kept, as a share of the source's kept samples
SELECT
    source,
    language,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    count(*) FILTER (kept) / count(*) AS rate,
    count(*) / sum(count(*)) OVER (PARTITION BY source) AS pool_share,
    count(*) FILTER (kept) / nullif(sum(count(*) FILTER (kept)) OVER (PARTITION BY source), 0) AS kept_share
FROM verdicts
GROUP BY source, language
ORDER BY source, pool DESC, language;
