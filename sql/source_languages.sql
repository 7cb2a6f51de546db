-- Languages of the captions in each source, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- column: source      name of the source
-- column: language    language code of the caption; null if not measured
-- column: pool        number of samples in the pool
-- column: kept        number of samples that were kept
-- column: rate        kept / pool
-- column: pool_share  pool / all samples of the source
-- column: kept_share  kept / all kept samples of the source
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
