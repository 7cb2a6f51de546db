-- Languages of the captions, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- column: language    the code; null where none was measured
-- column: pool        samples
-- column: kept        samples kept
-- column: rate        kept, as a share of the language's samples
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
