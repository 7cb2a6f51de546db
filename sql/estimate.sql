-- Rows before balancing, estimated from the kept set alone, beside the truth.
-- Horvitz-Thompson: each kept row stands for 1/probability rows. The standard error takes the draws as independent.
-- Where rows were forgotten, they are on neither side, or on one: it may then be off.
-- theme: Concepts and balancing
-- column: kept            rows kept
-- column: estimate        sum(1/probability) over the kept rows
-- column: standard_error  sqrt(sum((1 - probability) / probability^2)) over the kept rows
-- column: low             estimate - 1.96 standard errors
-- column: high            estimate + 1.96 standard errors
-- column: survivors       rows that stood before balancing, counted
-- column: deviation       (estimate - survivors) / standard_error; null where nothing was drawn
SELECT
    count(*) FILTER (kept) AS kept,
    coalesce(sum(1 / probability) FILTER (kept), 0) AS estimate,
    coalesce(sqrt(sum((1 - probability) / probability ** 2) FILTER (kept)), 0) AS standard_error,
    estimate - 1.96 * standard_error AS low,
    estimate + 1.96 * standard_error AS high,
    count(*) FILTER (kept OR rule = 'balance') AS survivors,
    CASE WHEN standard_error > 0 THEN (estimate - survivors) / standard_error END AS deviation
FROM decisions;
