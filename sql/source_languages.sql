-- The languages of each source, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- column: source      source name
-- column: language    language code; null if not measured
-- column: pool        samples
-- column: kept        kept samples
-- column: rate        kept / pool
-- column: pool_share  share of the source's samples
-- column: kept_share  share of the source's kept samples
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
