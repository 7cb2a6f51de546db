-- The number of rows before balancing, estimated from the kept set, and the true number.
-- This is the Horvitz-Thompson estimate: each kept row counts 1/probability times. The standard error assumes
-- independent draws, so it is too large with `balance.one_per`. The estimate is null if a kept row has no probability.
-- After `curate forget`, the estimate may be wrong.
-- theme: Entries and balancing
-- column: kept            number of kept rows
-- column: estimate        sum(1/probability) over the kept rows
-- column: standard_error  sqrt(sum((1 - probability) / probability^2)) over the kept rows
-- column: low             estimate − 1.96 × standard_error
-- column: high            estimate + 1.96 × standard_error
-- column: survivors       true number of rows when balancing began
-- column: deviation       (estimate − survivors) / standard_error; null if balancing drew no rows at random
SELECT
    count(*) FILTER (kept) AS kept,
    CASE WHEN bool_or(kept AND probability IS NULL) THEN NULL
        ELSE coalesce(sum(1 / probability) FILTER (kept), 0) END AS estimate,
    CASE WHEN estimate IS NOT NULL
        THEN coalesce(sqrt(sum((1 - probability) / probability ** 2) FILTER (kept)), 0) END AS standard_error,
    estimate - 1.96 * standard_error AS low,
    estimate + 1.96 * standard_error AS high,
    count(*) FILTER (kept OR rule IN ('balance', 'sample', 'other_text')) AS survivors,
    CASE WHEN standard_error > 0 THEN (estimate - survivors) / standard_error END AS deviation
FROM decisions;
