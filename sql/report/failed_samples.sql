-- Samples that could not be used, by reason.
SELECT reason, count AS samples, count / sum(count) OVER () AS share, meaning, detail AS example
FROM {failures}
WHERE kind = 'sample'
ORDER BY samples DESC, reason
LIMIT 40
