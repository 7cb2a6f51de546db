-- Duplicates by their source and the source of their representative.
-- theme: Duplicates
-- column: source                 of the duplicate
-- column: representative_source  the source of its representative
-- column: dropped                duplicates
-- column: share                  dropped, as a share of the source's samples
WITH dropped AS (
    SELECT d.unit, d.row, d.uid, d.duplicate_of, s.source, s.sha256, s.url, s.phash
    FROM decisions d JOIN samples s USING (unit, row)
    WHERE d.rule = 'duplicate'
), representatives AS (
    SELECT d.unit, d.row, d.uid, d.kept, s.source, s.sha256, s.url, s.phash
    FROM decisions d JOIN samples s USING (unit, row)
    WHERE (d.kept OR d.rule IN (FROM later_rules)) AND d.uid IN (SELECT duplicate_of FROM dropped)
)
SELECT d.source, k.source AS representative_source, count(*) AS dropped, count(*) / any_value(p.pool) AS share
FROM dropped d
LEFT JOIN representatives k ON k.uid = d.duplicate_of
LEFT JOIN sources p ON p.source = d.source
GROUP BY d.source, k.source
ORDER BY dropped DESC, d.source, representative_source;
