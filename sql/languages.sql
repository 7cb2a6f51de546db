-- Languages of the captions, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- column: language    language code; null if not measured
-- column: pool        samples
-- column: kept        kept samples
-- column: rate        kept / pool
-- column: pool_share  share of the pool
-- column: kept_share  share of the kept set
SELECT
    language,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    count(*) FILTER (kept) / count(*) AS rate,
    count(*) / sum(count(*)) OVER () AS pool_share,
    count(*) FILTER (kept) / nullif(sum(count(*) FILTER (kept)) OVER (), 0) AS kept_share
FROM verdicts
GROUP BY language
ORDER BY pool DESC, language;
