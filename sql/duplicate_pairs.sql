-- Each duplicate with the sample that represents it, those that differ most first.
-- theme: Duplicates
-- param: match_type = null [text]  only this kind: pair, image, url or near
-- param: limit = 20                maximum number of pairs
-- column: uid                     the duplicate
-- column: representative          uid of its representative; equal to `uid` if URL (or image) and caption are equal
-- column: match_type              pair (same uid), image (same bytes), url, or near (a similar image or embedding)
-- column: distance                bits in which their perceptual hashes differ; null without hashes
-- column: cosine                  largest cosine to a compared row; null if no embedding pass found it
-- column: kept                    whether the representative was kept
-- column: rule                    the step that dropped the representative, such as balance
-- column: caption                 the duplicate's caption
-- column: representative_caption  the representative's caption
WITH dropped AS (
    SELECT * FROM decisions UNION ALL BY NAME SELECT NULL::FLOAT AS duplicate_cosine WHERE false
), pairs AS (
    SELECT
        d.unit, d.row, d.uid, d.duplicate_of, d.duplicate_cosine, s.caption, s.phash, r.phash AS other_phash,
        r.kept, r.rule, r.caption AS representative_caption,
        CASE
            WHEN d.uid = d.duplicate_of THEN 'pair'
            WHEN s.sha256 = r.sha256 THEN 'image'
            WHEN s.url = r.url THEN 'url'
            ELSE 'near'
        END AS match_type
    FROM dropped d JOIN samples s USING (unit, row) LEFT JOIN representatives r ON r.uid = d.duplicate_of
    WHERE d.rule = 'duplicate'
)
SELECT
    uid, duplicate_of AS representative, match_type, bit_count(xor(phash, other_phash)) AS distance, duplicate_cosine AS cosine,
    kept, rule, caption, representative_caption
FROM pairs
WHERE $match_type IS NULL OR match_type = lower($match_type)
ORDER BY distance DESC NULLS LAST, cosine NULLS LAST, uid, unit, row
LIMIT $limit;
