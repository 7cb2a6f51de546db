-- Duplicates by what they have in common with their representative.
SELECT CASE match_type WHEN 'pair' THEN 'same uid' WHEN 'image' THEN 'same image bytes' ELSE 'near-duplicate' END AS match,
    sum(dropped)::BIGINT AS dropped, sum(share) AS share
FROM {duplicate_kinds}
GROUP BY 1
ORDER BY dropped DESC, match
