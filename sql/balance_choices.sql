-- What entries other thresholds t would thin, and the tail's share: how MetaCLIP chose t.
-- Matches are counted as they were when balancing began: a sample has several. How many samples each t keeps, and what share
-- of their matches is the tail's, `curate whatif DIR --sweep balance.t=A..B` works out.
-- theme: Concepts and balancing
-- param: at = null [numbers] values of t, such as '1000 20000'; null is this run's t and its halves and doubles
-- column: t           the threshold
-- column: thinned     entries with more matches than t, which balancing would thin
-- column: tail        entries with at most t, of which it would keep every sample
-- column: tail_share  of all matches before balancing, those of the tail
WITH chosen AS (
    SELECT DISTINCT unnest(CASE
        WHEN $at IS NOT NULL THEN regexp_extract_all($at::VARCHAR, '[^\s,;]+')::DOUBLE[]
        ELSE [own // 8, own // 4, own // 2, own, own * 2, own * 4, own * 8]
    END) AS t
    FROM (SELECT max(value::BIGINT) AS own FROM run WHERE key = 't')
)
SELECT
    t,
    count(*) FILTER (survivors > t) AS thinned,
    count(*) FILTER (survivors <= t) AS tail,
    coalesce(sum(survivors) FILTER (survivors <= t), 0) / sum(survivors) AS tail_share
FROM chosen, entries
WHERE t >= 1 AND survivors > 0
GROUP BY t
ORDER BY t;
