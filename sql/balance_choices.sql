-- Head and tail entries for other values of t, and the tail's share of matches.
-- This is how MetaCLIP chose t. Matches are those of the samples left when balancing began; a sample may have several.
-- `curate whatif DIR --sweep 'balance.t={A..B}'` also estimates how many samples each t keeps. If each language has its
-- own t, the entries are those of `balance.language`.
-- theme: Entries and balancing
-- param: at = null [numbers]  values of t, such as '1000 20000'; null: this run's t, divided and multiplied by 2, 4 and 8
-- column: t           the threshold
-- column: thinned     head entries: more than t matches, downsampled by balancing
-- column: tail        tail entries: fewer than t matches, as in MetaCLIP; entries with exactly t also keep all samples
-- column: tail_share  the tail's share of all matches before balancing, as in `balance.tail_share`
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
