-- Duplicates by their source and the source of their representative.
-- theme: Duplicates
-- column: source                 source of the duplicate
-- column: representative_source  source of its representative
-- column: dropped                duplicates
-- column: share                  dropped, as a share of the source's samples
SELECT s.source, r.source AS representative_source, count(*) AS dropped, count(*) / any_value(p.pool) AS share
FROM decisions d
JOIN samples s USING (unit, row)
LEFT JOIN representatives r ON r.uid = d.duplicate_of
LEFT JOIN sources p ON p.source = s.source
WHERE d.rule = 'duplicate'
GROUP BY s.source, r.source
ORDER BY dropped DESC, s.source, representative_source;
