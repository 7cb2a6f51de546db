-- How many samples each input file has, largest share of unreadable samples first.
-- theme: Files and failures
-- param: limit = 20  maximum number of rows
-- column: source        name of the source
-- column: shard         path of the input file
-- column: pool          number of samples found in the file
-- column: failed        number of samples that could not be read
-- column: kept          number of samples that were kept
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
