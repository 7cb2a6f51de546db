-- Samples that a rule dropped, to look at.
-- theme: Samples to look at
-- param: rule = null [rule]  name of the rule; null: any
-- param: limit = 20          maximum number of rows, in order of uid: arbitrary, but always the same
-- column: rule          the rule
-- column: uid           the sample; null if it could not be read: `curate explain` takes its key or URL
-- column: source        source name
-- column: caption       its caption
-- column: url           its URL
-- column: words         words in the caption
-- column: width         width of the image
-- column: height        height of the image
-- column: duplicate_of  representative of a duplicate; evaluation image of a contaminated sample
-- column: key           its key, if the input has keys
-- column: reason        why it could not be read, if it failed
SELECT rule, uid, source, caption, url, words, width, height, duplicate_of, key,
    CASE rule WHEN 'failed' THEN concat_ws(': ', status, error) END AS reason
FROM dropped
WHERE $rule IS NULL OR rule = $rule
ORDER BY uid NULLS LAST, unit, row
LIMIT $limit;
