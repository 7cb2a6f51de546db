-- What each rule dropped, from the pool to the kept set.
-- Each sample is counted once, at the first rule that it fails. The pool is the sum of `dropped` plus the last `kept`.
-- The column `rule` in `verdicts` and `dropped` has the same names.
-- theme: Overview
-- column: rule           the step: pool, failed (could not be read), the recipe's rules in order, unmatched, contaminated, duplicate, other_text, balance, kept
-- column: rows_in        samples that reached the step
-- column: dropped        samples that it dropped
-- column: kept           samples left after it
-- column: share_dropped  dropped / pool
-- column: share_kept     kept / pool
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
