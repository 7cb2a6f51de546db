-- Number of captions by kind and number of words ($longest and more together): synthetic captions that passed, and the originals.
WITH passed AS (SELECT uid, kind, text FROM captions WHERE gate = 'passed'),
texts AS (
    SELECT kind, text FROM passed
    UNION ALL
    SELECT NULL, caption FROM kept WHERE uid IN (SELECT uid FROM passed)
), counted AS (
    SELECT kind, least(len(regexp_extract_all(text, '\S+')), $longest) AS n, count(*) AS rows FROM texts GROUP BY ALL
)
SELECT k.kind, n, coalesce(sum(rows) FILTER (c.kind IS NULL), 0)::BIGINT AS before,
    coalesce(sum(rows) FILTER (c.kind = k.kind), 0)::BIGINT AS after
FROM (SELECT DISTINCT kind FROM passed) k JOIN counted c ON c.kind IS NULL OR c.kind = k.kind
GROUP BY ALL
ORDER BY ALL
