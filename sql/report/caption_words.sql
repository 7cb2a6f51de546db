-- Captions by words, $longest and more together: synthetic ones that passed by kind, and the originals of their samples.
WITH written AS (SELECT uid, kind, text FROM captions WHERE gate = 'passed'),
texts AS (
    SELECT kind, text FROM written
    UNION ALL
    SELECT 'original', caption FROM kept WHERE uid IN (SELECT uid FROM written)
)
SELECT kind, least(len(regexp_extract_all(text, '\S+')), $longest) AS words, count(*) AS n
FROM texts
GROUP BY ALL
ORDER BY ALL
