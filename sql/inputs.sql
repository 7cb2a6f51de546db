-- Samples kept by input file, largest share of unreadable samples first.
-- theme: Files and failures
-- param: limit = 20  maximum number of rows
-- column: source        source name
-- column: shard         the input file
-- column: pool          samples found in it
-- column: failed        unreadable samples
-- column: kept          kept samples
-- column: failed_share  failed / pool
-- column: rate          kept / pool
SELECT
    s.source, s.shard,
    count(*) AS pool,
    count(*) FILTER (d.rule = 'failed') AS failed,
    count(*) FILTER (d.kept) AS kept,
    count(*) FILTER (d.rule = 'failed') / count(*) AS failed_share,
    count(*) FILTER (d.kept) / count(*) AS rate
FROM samples s JOIN decisions d USING (unit, row)
GROUP BY s.source, s.shard
ORDER BY failed_share DESC, rate, s.source, s.shard
LIMIT $limit;
