-- What other thresholds t of balancing would do to the entries.
-- Matches are counted, not samples: a sample has several entries. `curate whatif` gives the samples.
-- theme: Concepts and balancing
-- param: at = null [numbers] values of t, such as '1000 20000'; null is this run's t and its halves and doubles
-- column: t           the threshold
-- column: thinned     entries with more matches than t, which balancing would thin
-- column: matches     of all matches when balancing began, how many would be drawn: the sum of min(survivors, t)
-- column: share       matches, as a share of those
-- column: tail_share  of matches, those of entries that are not thinned
WITH chosen AS (
    SELECT DISTINCT unnest(CASE
        WHEN $at IS NOT NULL THEN regexp_extract_all($at::VARCHAR, '[^\s,;]+')::DOUBLE[]
        ELSE [own / 8, own / 4, own / 2, own, own * 2, own * 4, own * 8]
    END) AS t
    FROM (SELECT max(value::DOUBLE) AS own FROM run WHERE key = 't')
)
SELECT
    t,
    count(*) FILTER (survivors > t) AS thinned,
    sum(least(survivors, t)) AS matches,
    sum(least(survivors, t)) / sum(survivors) AS share,
    coalesce(sum(survivors) FILTER (survivors <= t), 0) / nullif(sum(least(survivors, t)), 0) AS tail_share
FROM chosen, entries
WHERE t > 0 AND survivors > 0
GROUP BY t
ORDER BY t;
