-- Quality of synthetic captions by style: how many passed, their length, and CLIP score.
-- theme: Captions
-- column: kind            kind of caption: recaption, fused, rewrite, or translation
-- column: style           name of the style; for a translation, its language
-- column: texts           number of captions requested
-- column: passed          number of captions that passed all gates
-- column: pass_rate       passed / texts
-- column: words           median number of words in a passed caption
-- column: against         median of (words in a passed caption / words in its original caption)
-- column: tokens          mean number of tokens in an answer
-- column: distinct_share  number of different captions / number of captions. A low value means that the model repeats itself.
-- column: clip_score      mean CLIP score of passed captions; null if it was not measured
-- column: clip_gain       mean of (CLIP score of a passed caption − CLIP score of its original caption)
WITH texts AS (
    SELECT c.*, c.status = 'ok' AND c.gate = 'passed' AS good, len(string_split_regex(trim(c.text), '\s+')) AS n FROM captions c
), originals AS (
    -- As JSON, because not every run has the column.
    SELECT d.uid, s.words, (to_json(c) ->> 'clip_score')::DOUBLE AS score
    FROM decisions d JOIN samples s USING (unit, row) LEFT JOIN scored c USING (unit, row)
    WHERE d.kept AND d.uid IN (SELECT uid FROM captions)
)
SELECT
    t.kind,
    t.style,
    count(*) AS texts,
    count(*) FILTER (good) AS passed,
    count(*) FILTER (good) / count(*) AS pass_rate,
    median(n) FILTER (good) AS words,
    median(n / nullif(o.words, 0)) FILTER (good) AS against,
    avg(t.tokens) AS tokens,
    count(DISTINCT t.text) / nullif(count(t.text), 0) AS distinct_share,
    avg(t.clip_score) FILTER (good) AS clip_score,
    avg(t.clip_score - o.score) FILTER (good) AS clip_gain
FROM texts t LEFT JOIN originals o USING (uid)
GROUP BY t.kind, t.style
ORDER BY t.kind, t.style;
