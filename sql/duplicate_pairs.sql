-- Each duplicate next to its representative, most different pairs first.
-- theme: Duplicates
-- param: match_type = null [text]  show only this kind: pair, image, url, or near; null: all
-- param: limit = 20                maximum number of pairs
-- column: uid                     uid of the duplicate
-- column: representative          uid of its representative. The two uids are equal if both have the same caption and the same URL (or image).
-- column: match_type              `pair` (same uid), `image` (same bytes), `url`, or `near` (similar image or embedding)
-- column: distance                number of bits in which the two perceptual hashes differ; null without hashes
-- column: cosine                  highest cosine similarity between the duplicate and a sample that it was compared with; null if it was not found by embeddings
-- column: kept                    whether the representative was kept
-- column: rule                    the step that dropped the representative, such as `balance`
-- column: caption                 caption of the duplicate
-- column: representative_caption  caption of the representative
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
