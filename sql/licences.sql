-- Licenses that sources state of their samples, in the pool and in the kept set.
-- theme: Sources, languages and hosts
-- param: limit = 50  how many
-- column: stated      the column that says it: license_group, license or licence_url
-- column: licence     what it says; null where it says nothing
-- column: pool        samples
-- column: kept        samples kept
-- column: rate        kept, as a share of pool
-- column: kept_share  share of the kept set
-- empty: no column that states licenses is in the run's tables.
-- empty: Where the pool has one, a rule that names it brings it there, or `derive: {stated: licence_url}`; with --reuse nothing is measured again
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
