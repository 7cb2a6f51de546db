-- Results of the quality filters (gates) for synthetic captions, by kind and style.
-- theme: Captions
-- column: kind   recaption, fused, rewrite, translation
-- column: style  style or language
-- column: gate   passed, a gate that failed (a caption may fail several), or the reason for a missing caption
-- column: texts  synthetic captions
-- column: share  share of the captions of this kind and style
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
