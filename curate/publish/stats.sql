-- Tables in stats.duckdb that are computed from `counted`: the number of rows by source and rule (NULL: kept rows).
-- `steps` has the rules in order, and `listed` the sources in order.
CREATE TABLE drops AS FROM counted WHERE rule IS NOT NULL ORDER BY source, rule;

CREATE TABLE funnel AS
WITH lines AS (
    SELECT 0 AS position, 'pool' AS kind, 'pool' AS rule, (SELECT sum(rows) FROM counted) AS rows
    UNION ALL
    SELECT position, 'drop', rule, (SELECT sum(rows) FROM counted WHERE counted.rule = steps.rule) FROM steps
    UNION ALL
    SELECT (SELECT count(*) + 1 FROM steps), 'kept', 'kept', (SELECT sum(rows) FROM counted WHERE rule IS NULL)
)
SELECT position::INTEGER AS position, kind, rule, coalesce(rows, 0)::BIGINT AS rows FROM lines ORDER BY position;

CREATE TABLE sources AS
WITH sums AS (
    SELECT source, min(position) AS place, coalesce(sum(rows), 0)::BIGINT AS pool,
        coalesce(sum(rows) FILTER (rule = 'failed'), 0)::BIGINT AS failed,
        coalesce(sum(rows) FILTER (rows IS NOT NULL AND rule IS NULL), 0)::BIGINT AS kept
    FROM listed FULL JOIN counted USING (source)
    GROUP BY source
)
SELECT (row_number() OVER (ORDER BY place, source) - 1)::INTEGER AS position, source, pool, failed,
    pool - failed - kept AS dropped, kept
FROM sums
ORDER BY position;
