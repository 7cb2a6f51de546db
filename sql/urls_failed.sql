-- URLs that were not downloaded, each with its reason, attempts and time.
-- theme: Files and failures
-- param: may_pass = null [text]  'true': only those that may succeed on another attempt, 'false': only the others; null is all
-- param: limit = null            how many
-- column: url        the URL
-- column: reason     why there is no image, as in samples.status
-- column: detail     the error message
-- column: attempts   in all rounds; null if unknown
-- column: attempted  time of the last attempt, in UTC
-- column: may_pass   whether another attempt may succeed: `curate run … --retry`
-- column: source     the source's name in the recipe
-- column: uid        of the sample
SELECT s.url, f.reason, f.detail, f.attempts, f.attempted, f.may_pass, s.source, s.uid
FROM failures f
SEMI JOIN (SELECT reason FROM reasons WHERE never_came) r ON r.reason = f.reason
JOIN samples s ON s.unit = f.unit AND s.row = f.row
WHERE s.sha256 IS NULL AND ($may_pass IS NULL OR f.may_pass = $may_pass::BOOLEAN)
ORDER BY s.unit, s.row
LIMIT $limit;
