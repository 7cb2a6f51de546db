-- Samples and files that could not be read, by reason.
-- theme: Files and failures
-- column: kind      `sample`; `file` (the whole file could not be read, so its samples are unknown); or `part of a file` (the samples before the damage are used)
-- column: reason    reason code
-- column: count     number of samples or files
-- column: share     for samples, count / all samples of the pool
-- column: meaning   what the reason code means
-- column: example   shard and key of one example, the first by name. If the input has no keys, the example's unit and row.
-- column: detail    error message for this example
-- column: may_pass  number of URLs that may succeed on another attempt (`--retry`). If you repaired files instead, start a new run with `--reuse`.
SELECT
    kind,
    reason,
    count(*) AS count,
    CASE WHEN kind = 'sample' THEN count(*) / (SELECT rows FROM funnel WHERE funnel.kind = 'pool') END AS share,
    any_value(meaning) AS meaning,
    arg_min(concat_ws(' ', shard, coalesce(key, 'unit ' || unit || ' row ' || row)), (shard, key, unit, row)) AS example,
    arg_min(detail, (shard, key, unit, row)) AS detail,
    count(*) FILTER (may_pass) AS may_pass
FROM (
    SELECT f.*, r.meaning, coalesce(r.kind, CASE WHEN f.row IS NULL THEN 'file' ELSE 'sample' END) AS kind
    FROM failures f LEFT JOIN reasons r USING (reason)
)
GROUP BY kind, reason
ORDER BY kind, count DESC, reason;
