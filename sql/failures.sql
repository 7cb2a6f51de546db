-- Samples and files that could not be read, by reason.
-- theme: Files and failures
-- column: kind     sample, file (its samples are unknown) or part of a file (the samples before the damage are used)
-- column: reason   the code, as in samples.status
-- column: count    how many
-- column: share    samples: as a share of the pool
-- column: meaning  the reason in words
-- column: example  the first shard by name, and key; unit and row where the input has no keys
-- column: detail   the error message of the example
-- column: may_pass  how many URLs may succeed on another attempt (`--retry`); repaired files need another `--out`, with `--reuse`
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
