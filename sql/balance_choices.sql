-- Number of head and tail entries, and the tail's share of matches, at several values of t.
-- MetaCLIP's authors chose their t this way. Only samples left when balancing began count. A sample counts once for
-- each entry that it matches. To estimate how many samples each t keeps, use `curate whatif DIR --sweep
-- 'balance.t={A..B}'`. If each language has its own t, the query counts only entries in the language of
-- `balance.language`.
-- theme: Entries and balancing
-- param: at = null [numbers]  values of t, such as '1000 20000'; null: this run's t, and this t divided and multiplied by 2, 4, and 8
-- column: t           the value of t
-- column: thinned     number of head entries. They have more than t matches, so balancing downsamples them.
-- column: tail        number of tail entries. They have fewer than t matches, as in MetaCLIP. An entry with exactly t matches is in neither group and keeps all its samples.
-- column: tail_share  matches of tail entries / all matches before balancing, as in `balance.tail_share`
WITH chosen AS (
    SELECT DISTINCT unnest(CASE
        WHEN $at IS NOT NULL THEN regexp_extract_all($at::VARCHAR, '[^\s,;]+')::DOUBLE[]::BIGINT[]
        ELSE [own // 8, own // 4, own // 2, own, own * 2, own * 4, own * 8]
    END) AS t
    FROM (SELECT max(value::BIGINT) AS own FROM run WHERE key = 't')
)
SELECT
    t,
    count(*) FILTER (survivors > t) AS thinned,
    count(*) FILTER (survivors < t) AS tail,
    coalesce(sum(survivors) FILTER (survivors < t), 0) / sum(survivors) AS tail_share
FROM chosen, entries
WHERE t >= 1 AND survivors > 0
    AND language = coalesce((SELECT key FROM json_each((SELECT value FROM run WHERE key = 't_by_language')) LIMIT 1), language)
GROUP BY t
ORDER BY t;
