-- How many synthetic captions passed or failed each quality filter (gate).
-- theme: Captions
-- column: kind   kind of caption: recaption, fused, rewrite, or translation
-- column: style  name of the style; for a translation, its language
-- column: gate   the result: `passed`, the name of a gate that failed, or the reason why there is no caption. A caption that fails several gates counts once for each.
-- column: texts  number of synthetic captions
-- column: share  texts / all captions of this kind and style
WITH judged AS (
    SELECT kind, style, CASE WHEN status <> 'ok' THEN [status] WHEN gate = 'passed' THEN ['passed'] ELSE failed END AS gates
    FROM captions
), totals AS (
    SELECT kind, style, count(*) AS total FROM judged GROUP BY ALL
)
SELECT kind, style, gate, count(*) AS texts, count(*) / any_value(total) AS share
FROM (SELECT kind, style, unnest(gates) AS gate FROM judged) JOIN totals USING (kind, style)
GROUP BY kind, style, gate
ORDER BY kind, style, texts DESC, gate;
