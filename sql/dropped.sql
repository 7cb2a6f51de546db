-- Samples that a rule dropped.
-- theme: Samples to look at
-- param: rule = null [rule]  show only samples that this step dropped; null: any step
-- param: limit = 20          maximum number of rows. Rows are in the order of uids, which is arbitrary but always the same.
-- column: rule          the step that dropped the sample
-- column: uid           uid of the sample; null if the sample could not be read. If it is null, pass the sample's key or URL to `curate explain`.
-- column: source        name of the source
-- column: caption       caption of the sample
-- column: url           URL of the sample
-- column: words         number of words in the caption
-- column: width         width of the image in pixels
-- column: height        height of the image in pixels
-- column: duplicate_of  for a duplicate, the uid of its representative; for a contaminated sample, the evaluation image that it resembles
-- column: key           key of the sample, if the input has keys
-- column: reason        if the sample could not be read, the reason code
SELECT rule, uid, source, caption, url, words, width, height, duplicate_of, key,
    CASE rule WHEN 'failed' THEN concat_ws(': ', status, error) END AS reason
FROM dropped
WHERE $rule IS NULL OR rule = $rule
ORDER BY uid NULLS LAST, unit, row
LIMIT $limit;
