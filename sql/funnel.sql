-- What each rule dropped, from the pool to the kept set.
-- Every sample is counted once, by the first rule that it fails: the pool is the sum of `dropped` and the last `kept`.
-- The column `rule` of `verdicts` and `dropped` holds these names, of rules and of other steps.
-- theme: Overview
-- column: rule           the step: pool, failed (could not be read), the recipe's rules in order, unmatched, contaminated, duplicate, other_text, balance, kept
-- column: rows_in        samples that reached it
-- column: dropped        samples that it dropped
-- column: kept           samples left after it
-- column: share_dropped  dropped, as a share of the pool
-- column: share_kept     samples left, as a share of the pool
SELECT
    rule,
    (CASE WHEN kind = 'drop' THEN pool - before ELSE rows END)::BIGINT AS rows_in,
    CASE WHEN kind = 'drop' THEN rows ELSE 0 END AS dropped,
    rows_in - dropped AS kept,
    coalesce(dropped / nullif(pool, 0), 0) AS share_dropped,
    coalesce((rows_in - dropped) / nullif(pool, 0), 0) AS share_kept
FROM (
    SELECT
        position, kind, rule, rows,
        max(rows) FILTER (kind = 'pool') OVER () AS pool,
        coalesce(sum(rows) FILTER (kind = 'drop') OVER (
            ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0) AS before
    FROM funnel
)
ORDER BY position;
