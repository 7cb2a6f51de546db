-- How hard balancing drew: samples by their probability, expected and kept.
-- theme: Concepts and balancing
-- column: from        probability of at least so much
-- column: below       and less than so much; the last row is those kept for certain
-- column: survivors   samples that stood when balancing began
-- column: expected    the sum of their probabilities: how many were expected to be kept
-- column: kept        how many were kept
-- column: deviation   (kept - expected) / sqrt(sum(p(1 - p))), draws taken as independent: beyond 4 is strange
SELECT
    CASE WHEN probability >= 1 THEN 1.0::DOUBLE ELSE floor(probability * 10) / 10 END AS "from",
    CASE WHEN probability >= 1 THEN NULL ELSE floor(probability * 10) / 10 + 0.1 END AS below,
    count(*) AS survivors,
    sum(probability) AS expected,
    count(*) FILTER (kept) AS kept,
    (count(*) FILTER (kept) - sum(probability)) / nullif(sqrt(sum(probability * (1 - probability))), 0) AS deviation
FROM decisions
WHERE kept OR rule = 'balance'
GROUP BY "from", below
ORDER BY "from";
