-- How many samples each rule dropped from each source.
-- theme: Sources, languages and hosts
-- column: source   name of the source
-- column: rule     the step, as in `funnel`
-- column: dropped  number of the source's samples that the step dropped
-- column: share    dropped / all samples of the source
SELECT s.source, f.rule, coalesce(d.rows, 0) AS dropped, coalesce(d.rows, 0) / nullif(s.pool, 0) AS share
FROM sources s
JOIN funnel f ON f.kind = 'drop'
LEFT JOIN drops d ON d.source = s.source AND d.rule = f.rule
ORDER BY s.position, f.position;
