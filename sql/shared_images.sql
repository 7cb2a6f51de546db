-- Images that several kept samples have, each with another caption.
-- theme: Images
-- param: limit = 20  maximum number of images, those with the most samples first
-- column: sha256    sha256 of the image's bytes
-- column: kept      number of kept samples that have the image
-- column: captions  the first five captions, in the order of uids
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
