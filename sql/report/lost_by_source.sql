-- Which share of its rows each of the largest sources lost at each step, with a column for each source.
SELECT * EXCLUDE (position) FROM (
    PIVOT (
        SELECT f.position, f.rule AS step, s.source, coalesce(d.rows, 0) / s.pool AS share
        FROM (FROM sources WHERE pool > 0 ORDER BY pool DESC, source LIMIT 8) s
        CROSS JOIN (FROM funnel WHERE kind = 'drop' AND rows > 0 ORDER BY position LIMIT 40) f
        LEFT JOIN drops d ON d.source = s.source AND d.rule = f.rule
    ) ON source USING first(share) GROUP BY position, step
)
ORDER BY position
