-- Number of rows by the rank of their entry, before and after, at about $points ranks that are evenly spaced on a log axis.
WITH counted AS (
    SELECT 'before' AS series, if($balanced, survivors, pool) AS rows FROM entries
    UNION ALL
    SELECT 'kept', kept FROM entries
), ranked AS (
    SELECT series, rows, row_number() OVER (PARTITION BY series ORDER BY rows DESC) AS rank, count(*) OVER (PARTITION BY series) AS n
    FROM counted WHERE rows > 0
)
SELECT series, rank, rows, format('rank {:,}: {:,} samples {}', rank, rows, series) AS tooltip
FROM ranked
WHERE rank IN (1, n) OR floor($points * ln(rank) / ln(n)) > floor($points * ln(greatest(rank - 1, 1)) / ln(n))
ORDER BY series, rank
