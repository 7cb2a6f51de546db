-- What duplicates have in common with their representative.
-- Each is counted once, by the first match: same pair, same image, same URL, else near-duplicate.
-- theme: Duplicates
-- column: match_type  pair (the same uid), image (the same bytes), url, or near (an image or embedding that is close)
-- column: dropped     duplicates
-- column: groups      their representatives
-- column: share       dropped, as a share of all duplicates
WITH dropped AS (
    SELECT d.unit, d.row, d.uid, d.duplicate_of, s.source, s.sha256, s.url, s.phash
    FROM decisions d JOIN samples s USING (unit, row)
    WHERE d.rule = 'duplicate'
), representatives AS (
    SELECT d.unit, d.row, d.uid, d.kept, s.source, s.sha256, s.url, s.phash
    FROM decisions d JOIN samples s USING (unit, row)
    WHERE (d.kept OR d.rule IN (FROM later_rules)) AND d.uid IN (SELECT duplicate_of FROM dropped)
)
SELECT
    CASE
        WHEN d.uid = d.duplicate_of THEN 'pair'
        WHEN d.sha256 = k.sha256 THEN 'image'
        WHEN d.url = k.url THEN 'url'
        ELSE 'near'
    END AS match_type,
    count(*) AS dropped,
    count(DISTINCT d.duplicate_of) AS groups,
    count(*) / sum(count(*)) OVER () AS share
FROM dropped d LEFT JOIN representatives k ON k.uid = d.duplicate_of
GROUP BY match_type
ORDER BY dropped DESC, match_type;
