-- How many URLs of each source were downloaded, and why the others were not.
-- theme: Files and failures
-- column: source    source that has URLs, or tars from img2dataset with missing samples
-- column: outcome   `came` if the file was downloaded, even if it cannot be decoded; otherwise the reason code
-- column: count     number of URLs
-- column: share     count / all URLs of the source
-- column: may_pass  number of URLs that may succeed on another attempt: `curate run … --retry`
-- column: attempts  largest number of attempts at one URL, over all commands; null if unknown
-- column: last      time of the last attempt, in UTC
WITH outcomes AS (
    SELECT source, coalesce(reason, 'came') AS outcome, count(*) AS count
    FROM samples LEFT JOIN (SELECT reason FROM reasons WHERE never_came) ON reason = status AND sha256 IS NULL
    GROUP BY ALL
), downloading AS (
    SELECT source FROM outcomes WHERE outcome <> 'came'
    UNION
    SELECT input ->> 'name' FROM (SELECT unnest((value::JSON -> '$.input[*]')) AS input FROM run WHERE key = 'recipe') WHERE input ->> 'format' = 'urls'
), tried AS (
    SELECT source, reason AS outcome, count(*) FILTER (may_pass) AS may_pass, max(attempts) AS attempts, max(attempted) AS last
    FROM failures f JOIN samples s ON s.unit = f.unit AND s.row = f.row
    GROUP BY ALL
)
SELECT
    source, outcome, count,
    count / sum(count) OVER (PARTITION BY source) AS share,
    coalesce(may_pass, 0) AS may_pass,
    attempts, last
FROM outcomes SEMI JOIN downloading USING (source) LEFT JOIN tried USING (source, outcome)
ORDER BY source, outcome <> 'came', count DESC, outcome;
