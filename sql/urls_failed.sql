-- URLs that were not downloaded, with reason, attempts, and time of the last attempt.
-- theme: Files and failures
-- param: may_pass = null [text]  'true': show only URLs that may succeed on another attempt; 'false': only the others; null: all
-- param: limit = null            maximum number of rows
-- column: url        the URL
-- column: reason     reason code
-- column: detail     error message
-- column: attempts   number of attempts, over all commands; null if unknown
-- column: attempted  time of the last attempt, in UTC
-- column: may_pass   whether another attempt may succeed: `curate run … --retry`
-- column: source     name of the source
-- column: uid        uid of the sample
SELECT s.url, f.reason, f.detail, f.attempts, f.attempted, f.may_pass, s.source, s.uid
FROM failures f
SEMI JOIN (SELECT reason FROM reasons WHERE never_came) r ON r.reason = f.reason
JOIN samples s ON s.unit = f.unit AND s.row = f.row
WHERE s.sha256 IS NULL AND ($may_pass IS NULL OR f.may_pass = $may_pass::BOOLEAN)
ORDER BY s.unit, s.row
LIMIT $limit;
