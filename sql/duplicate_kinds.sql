-- How many duplicates share a uid, image, or URL with their representative, or are similar.
-- A duplicate counts once, for the first kind that applies: pair, image, url, near.
-- theme: Duplicates
-- column: match_type  `pair` (same uid), `image` (same bytes), `url`, or `near` (similar image or embedding)
-- column: dropped     number of duplicates
-- column: groups      number of representatives
-- column: share       dropped / all duplicates
SELECT
    CASE
        WHEN d.uid = d.duplicate_of THEN 'pair'
        WHEN s.sha256 = r.sha256 THEN 'image'
        WHEN s.url = r.url THEN 'url'
        ELSE 'near'
    END AS match_type,
    count(*) AS dropped,
    count(DISTINCT d.duplicate_of) AS groups,
    count(*) / sum(count(*)) OVER () AS share
FROM decisions d JOIN samples s USING (unit, row) LEFT JOIN representatives r ON r.uid = d.duplicate_of
WHERE d.rule = 'duplicate'
GROUP BY match_type
ORDER BY dropped DESC, match_type;
