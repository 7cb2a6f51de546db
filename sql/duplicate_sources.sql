-- How many duplicates each source has, by the source of their representatives.
-- theme: Duplicates
-- column: source                 source of the duplicates
-- column: representative_source  source of their representatives
-- column: dropped                number of duplicates
-- column: share                  dropped / all samples of the source
SELECT s.source, r.source AS representative_source, count(*) AS dropped, count(*) / any_value(p.pool) AS share
FROM decisions d
JOIN samples s USING (unit, row)
LEFT JOIN representatives r ON r.uid = d.duplicate_of
LEFT JOIN sources p ON p.source = s.source
WHERE d.rule = 'duplicate'
GROUP BY s.source, r.source
ORDER BY dropped DESC, s.source, representative_source;
