-- Groups of near-duplicates: samples similar to a representative, but not exact copies.
-- theme: Duplicates
-- param: limit = 20  maximum number of groups, largest first
-- column: uid       uid of the representative
-- column: dropped   number of near-duplicates that were dropped. Exact copies do not count.
-- column: cosine    smallest number in `cosines`; null if the near-duplicates were not found by embeddings
-- column: distance  largest number of bits in which a member's perceptual hash differs from the representative's; null without hashes
-- column: members   uids of the near-duplicates
-- column: cosines   for each member, the highest cosine similarity to a sample that it was compared with; 1 if this is at least 0.9999
-- column: captions  captions of the first three members
-- column: caption   caption of the representative
-- column: url       URL of the representative
WITH dropped AS (
    SELECT d.unit, d.row, d.uid, d.duplicate_of, d.duplicate_cosine AS cosine, s.sha256, s.url, s.phash
    FROM (SELECT * FROM decisions UNION ALL BY NAME SELECT NULL::FLOAT AS duplicate_cosine WHERE false) d
    JOIN samples s USING (unit, row)
    WHERE d.rule = 'duplicate'
), clusters AS (
    SELECT
        k.unit, k.row, k.uid,
        count(*) AS dropped,
        min(d.cosine) AS cosine,
        max(bit_count(xor(d.phash, k.phash))) AS distance,
        list((d.unit, d.row) ORDER BY d.unit, d.row) AS places,
        list(d.uid ORDER BY d.unit, d.row) AS members,
        list(d.cosine ORDER BY d.unit, d.row) AS cosines
    FROM dropped d JOIN representatives k ON k.uid = d.duplicate_of
    WHERE d.uid <> k.uid AND coalesce(d.sha256 <> k.sha256, true) AND coalesce(d.url <> k.url, true)
    GROUP BY k.unit, k.row, k.uid
    ORDER BY dropped DESC, k.uid
    LIMIT $limit
), shown AS (
    SELECT c.uid, list(s.caption ORDER BY s.unit, s.row) AS captions
    FROM (SELECT uid, unnest(places[:3]) AS place FROM clusters) c
    JOIN samples s ON s.unit = c.place[1] AND s.row = c.place[2]
    GROUP BY c.uid
)
SELECT c.uid, c.dropped, c.cosine, c.distance, c.members, c.cosines, w.captions, s.caption, s.url
FROM clusters c JOIN shown w USING (uid) JOIN samples s ON s.unit = c.unit AND s.row = c.row
ORDER BY c.dropped DESC, c.uid;
