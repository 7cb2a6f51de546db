-- The $top entries whose share of all matches grew most, or shrank most. Before: left at balancing, or in the pool.
SELECT entry, if($balanced, survivors, pool) AS before, kept,
    {'share': before / $matches, 'length': before / $matches / longest, 'style': 'pool'} AS "share before",
    {'share': kept / $matches_kept, 'length': kept / $matches_kept / longest} AS "share after",
    (kept / $matches_kept / nullif(before / $matches, 0))::DECIMAL(18, 3) AS "× share"
FROM (
    SELECT *, kept / $matches_kept - if($balanced, survivors, pool) / $matches AS gain,
        max(greatest(kept / $matches_kept, if($balanced, survivors, pool) / $matches)) OVER () AS longest
    FROM entries
    WHERE pool > 0
)
WHERE if($gained, gain > 0, gain < 0)
ORDER BY if($gained, -gain, gain), entry
LIMIT $top
