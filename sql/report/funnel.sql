-- Each step of the funnel: what it dropped, and what was left. All steps after the first $most are added up.
WITH lines AS (
    SELECT kind, if(kind = 'drop', least(position, $most + 1), position) AS line, sum(rows)::BIGINT AS rows,
        if(count(*) > 1, format('{:,} more steps', count(*)), any_value(rule)) AS step
    FROM funnel
    GROUP BY ALL
), counted AS (
    SELECT *, first(rows) OVER (ORDER BY line) AS pool,
        (first(rows) OVER (ORDER BY line) - sum(if(kind = 'drop', rows, 0)) OVER (ORDER BY line))::BIGINT AS remaining
    FROM lines
)
SELECT step, if(kind = 'drop', -rows, rows) AS samples, rows / nullif(pool, 0) AS "share of the pool",
    {'count': remaining, 'length': remaining / nullif(pool, 0), 'style': if(kind = 'kept', 'kept', 'pool')} AS "left",
    if(kind = 'drop', rows / nullif(remaining + rows, 0), NULL) AS "share of those reaching it",
    if(kind = 'pool', 'all samples found', NULL) AS meaning
FROM counted
ORDER BY line
