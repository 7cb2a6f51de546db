-- Quality of synthetic captions by style: share that passed, length, and CLIP score.
-- theme: Captions
-- column: kind         recaption, fused, rewrite, translation
-- column: style        the style, or the language
-- column: texts        captions requested
-- column: passed       of those, passed all gates
-- column: pass_rate    passed, as a share of texts
-- column: words        words of a caption that passed; the median
-- column: against      words of a caption that passed, divided by those of its original; the median
-- column: tokens       tokens of an answer; the mean
-- column: distinct_share  distinct captions, as a share of texts: low where a model repeats itself
-- column: clip_score   mean over captions that passed; null if not measured
-- column: clip_gain    clip_score minus that of the original; the mean
WITH texts AS (
    SELECT c.*, c.status = 'ok' AND c.gate = 'passed' AS good, len(string_split_regex(trim(c.text), '\s+')) AS n FROM captions c
), originals AS (
    -- As JSON, since not every run has the column.
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
