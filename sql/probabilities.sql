-- Samples by their probability of being kept: expected and kept.
-- theme: Entries and balancing
-- column: from       lower end of the probability; null if samples are not kept by chance
-- column: below      upper end, excluded; null for samples that are certainly kept
-- column: survivors  samples left when balancing began
-- column: expected   sum of their probabilities
-- column: kept       kept samples
-- column: deviation  (kept - expected) / sqrt(sum(p(1 - p))), for independent draws; beyond 4 is suspicious
SELECT
    CASE WHEN probability >= 1 THEN 1.0::DOUBLE ELSE floor(probability * 10) / 10 END AS "from",
    CASE WHEN probability >= 1 THEN NULL ELSE floor(probability * 10) / 10 + 0.1 END AS below,
    count(*) AS survivors,
    sum(probability) AS expected,
    count(*) FILTER (kept) AS kept,
    (count(*) FILTER (kept) - sum(probability)) / nullif(sqrt(sum(probability * (1 - probability))), 0) AS deviation
FROM decisions
WHERE kept OR rule IN ('balance', 'sample', 'other_text')
GROUP BY "from", below
ORDER BY "from";
