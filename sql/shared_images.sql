-- Images that several kept samples share, with different captions.
-- theme: Images
-- param: limit = 20  maximum number of images, most frequent first
-- column: sha256    digest of the image's bytes
-- column: kept      kept samples that have it
-- column: captions  the first five captions by uid
-- column: url       URL of the sample with the smallest uid
WITH shared AS (
    SELECT s.sha256, count(*) AS kept
    FROM samples s JOIN decisions d USING (unit, row)
    WHERE d.kept AND s.sha256 IS NOT NULL
    GROUP BY s.sha256
    HAVING count(*) > 1
    ORDER BY kept DESC, s.sha256
    LIMIT $limit
)
SELECT s.sha256, any_value(h.kept) AS kept, list(s.caption ORDER BY s.uid)[:5] AS captions, arg_min(s.url, s.uid) AS url
FROM shared h JOIN samples s USING (sha256) JOIN decisions d USING (unit, row)
WHERE d.kept
GROUP BY s.sha256
ORDER BY kept DESC, s.sha256;
