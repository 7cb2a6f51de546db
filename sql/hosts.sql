-- How many samples come from each host, lowest share of kept samples first.
-- theme: Sources, languages and hosts
-- param: min_pool = 1  leave out hosts with fewer samples than this
-- param: limit = 20    maximum number of rows
-- column: host        host in the URL, without the port
-- column: pool        number of samples in the pool
-- column: failed      number of samples that could not be read
-- column: never_came  number of failed samples that were never downloaded (link rot)
-- column: kept        number of samples that were kept
-- column: rate        kept / pool
-- column: top_rule    the step that dropped most of the host's samples; null if none was dropped
-- column: top_rows    number of samples that this step dropped
WITH counts AS (
    SELECT host, d.rule, count(*) AS rows, count(reason) AS never_came
    FROM samples JOIN decisions d USING (unit, row) LEFT JOIN (SELECT reason FROM reasons WHERE never_came) ON reason = status AND sha256 IS NULL
    WHERE url IS NOT NULL
    GROUP BY ALL
)
SELECT
    host,
    sum(rows) AS pool,
    coalesce(sum(rows) FILTER (rule = 'failed'), 0) AS failed,
    sum(never_came) AS never_came,
    coalesce(sum(rows) FILTER (rule IS NULL), 0) AS kept,
    kept / pool AS rate,
    arg_max(rule, (rows, rule)) FILTER (rule IS NOT NULL) AS top_rule,
    max(rows) FILTER (rule IS NOT NULL) AS top_rows
FROM counts
GROUP BY host
HAVING pool >= $min_pool
ORDER BY rate, pool DESC, host
LIMIT $limit;
