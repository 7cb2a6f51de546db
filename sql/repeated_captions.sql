-- Captions that several samples have, in the pool and in the kept set.
-- theme: Captions
-- param: limit = 20  maximum number of captions, most frequent in the pool first
-- column: caption  the caption
-- column: pool     number of pool samples that have this caption
-- column: kept     number of these samples that were kept
-- column: images   number of different images that these samples have; null without images
WITH repeated AS (
    SELECT hash(caption) AS h, count(*) AS pool
    FROM samples
    WHERE caption IS NOT NULL
    GROUP BY h
    HAVING pool > 1
    ORDER BY pool DESC, h
    LIMIT $limit * 2
)
SELECT
    s.caption,
    count(*) AS pool,
    count(*) FILTER (d.kept) AS kept,
    nullif(count(DISTINCT s.sha256), 0) AS images
FROM samples s JOIN decisions d USING (unit, row)
WHERE hash(s.caption) IN (SELECT h FROM repeated)
GROUP BY s.caption
HAVING count(*) > 1
ORDER BY pool DESC, s.caption
LIMIT $limit;
