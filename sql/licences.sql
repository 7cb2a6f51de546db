-- Licenses that sources state for their samples, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- param: limit = 50  maximum number of rows
-- column: stated      name of the column that has the license: `license_group`, `license`, or `licence_url`
-- column: licence     the license, which is the value in this column; null if there is none
-- column: pool        number of samples in the pool
-- column: kept        number of samples that were kept
-- column: rate        kept / pool
-- column: kept_share  kept / all kept samples
-- empty: the run's tables have no column with licenses. If the pool has such a column, name it in a rule or in `derive:
-- empty: {stated: licence_url}`, and run again. With `--reuse`, curate does not measure the pool again
WITH stating AS (
    SELECT COLUMNS('(?i)^(kept|license_group|license|licence_url)$')::VARCHAR, NULL::VARCHAR AS nothing FROM verdicts
), stated AS (
    SELECT kept::BOOLEAN AS was_kept, stated, licence
    FROM stating UNPIVOT INCLUDE NULLS (licence FOR stated IN (COLUMNS('(?i)^(license_group|license|licence_url|nothing)$')))
    WHERE stated <> 'nothing'
)
SELECT
    stated,
    licence,
    count(*) AS pool,
    count(*) FILTER (was_kept) AS kept,
    kept / pool AS rate,
    kept / nullif(sum(kept) OVER (PARTITION BY stated), 0) AS kept_share
FROM stated
GROUP BY stated, licence
ORDER BY stated, pool DESC, licence
LIMIT $limit;
