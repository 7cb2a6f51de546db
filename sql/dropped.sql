-- Samples that a rule dropped, to look at.
-- theme: Samples to look at
-- param: rule = null [rule] the rule's name; null is any rule
-- param: limit = 20    how many, in order of uid: arbitrary, but always the same
-- column: rule          the rule
-- column: uid           the sample; null where it could not be read: `curate explain` takes its key or URL
-- column: source        its source
-- column: caption       its caption
-- column: url           its URL
-- column: words         words of the caption
-- column: width         of the image
-- column: height        of the image
-- column: duplicate_of  of a duplicate, its representative; of a contaminated sample, the evaluation image
-- column: key           its key, where the input has keys
-- column: reason        of one that failed, why it could not be read
SELECT rule, uid, source, caption, url, words, width, height, duplicate_of, key,
    CASE rule WHEN 'failed' THEN concat_ws(': ', status, error) END AS reason
FROM dropped
WHERE $rule IS NULL OR rule = $rule
ORDER BY uid NULLS LAST, unit, row
LIMIT $limit;
