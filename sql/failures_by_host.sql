-- Samples that could not be read, by the host of their URL and by reason.
-- theme: Files and failures
-- param: limit = 20  maximum number of rows
-- column: host        host in the URL, without the port; null without a URL
-- column: reason      reason code
-- column: count       number of samples
-- column: never_came  number of these samples that were never downloaded (link rot)
-- column: share       count / all samples of the host in the pool
-- column: example     alphabetically first URL of these samples
-- column: may_pass    number of samples that may succeed on another attempt: `curate run … --retry`
WITH named AS (
    SELECT host, status, url, may_pass, reason
    FROM samples s LEFT JOIN (SELECT unit, row, may_pass FROM failures WHERE may_pass) f ON f.unit = s.unit AND f.row = s.row
    LEFT JOIN (SELECT reason FROM reasons WHERE never_came) ON reason = status AND sha256 IS NULL
), failed AS (
    SELECT host, status, count(*) AS count, count(reason) AS never_came, min(url) AS example, count(may_pass) AS may_pass
    FROM named WHERE status <> 'ok' GROUP BY ALL
), pools AS (
    SELECT host, count(*) AS pool FROM named SEMI JOIN failed ON failed.host IS NOT DISTINCT FROM named.host GROUP BY ALL
)
SELECT f.host, f.status AS reason, f.count, f.never_came, f.count / p.pool AS share, f.example, f.may_pass
FROM failed f JOIN pools p ON p.host IS NOT DISTINCT FROM f.host
ORDER BY f.count DESC, f.host NULLS LAST, reason
LIMIT $limit;
