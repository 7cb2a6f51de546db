-- How many samples each rule dropped, from the pool to the kept set.
-- Each sample counts once, at the first rule that it fails. The pool equals the sum of `dropped` plus the last `kept`.
-- The column `rule` in `verdicts` and `dropped` uses the same names.
-- theme: Overview
-- column: rule           name of the step: `pool`, `failed` (could not be read), the recipe's rules in order, `unmatched`, `contaminated`, `duplicate`, `other_text`, `balance`, `kept`
-- column: rows_in        number of samples that reached the step
-- column: dropped        number of samples that the step dropped
-- column: kept           number of samples left after the step
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
