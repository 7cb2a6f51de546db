-- How many samples were kept, compared with the number expected from their probabilities.
-- theme: Entries and balancing
-- column: from       lower end of the range of probabilities; null if no sample is drawn at random
-- column: below      upper end of the range, excluded; null for samples that are always kept
-- column: survivors  number of samples left when balancing began
-- column: expected   sum of their probabilities
-- column: kept       number of samples that were kept
-- column: deviation  (kept − expected) / sqrt(sum(p(1 − p))), which assumes independent draws. A deviation above 4 or below −4 is suspicious.
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
