-- Languages of the captions, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- column: language    language code of the caption; null if not measured
-- column: pool        number of samples in the pool
-- column: kept        number of samples that were kept
-- column: rate        kept / pool
-- column: pool_share  pool / all samples of the pool
-- column: kept_share  kept / all kept samples
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
