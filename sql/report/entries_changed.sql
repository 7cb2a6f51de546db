-- The $top entries whose share of all matches grew most or shrank most since balancing began, or from the pool if there is none.
WITH counted AS (
    SELECT entry, if($balanced, survivors, pool) AS before, kept FROM entries WHERE pool > 0
), shared AS (
    SELECT *, before / nullif(sum(before) OVER (), 0) AS old, kept / nullif(sum(kept) OVER (), 0) AS new FROM counted
)
SELECT entry, before, kept, {'share': old, 'length': old / longest, 'style': 'pool'} AS "share before",
    {'share': new, 'length': new / longest} AS "share after", (new / nullif(old, 0))::DECIMAL(18, 3) AS "× share"
FROM (SELECT *, new - old AS gain, max(greatest(new, old)) OVER () AS longest FROM shared)
WHERE if($gained, gain > 0, gain < 0)
ORDER BY if($gained, -gain, gain), entry
LIMIT $top
