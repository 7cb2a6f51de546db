-- Synthetic captions and their originals, with the results of the gates.
-- theme: Captions
-- param: kind = null  recaption, fused, rewrite or translation; null: all
-- param: gate = null  passed, or a gate; null: all
-- param: limit = 20   maximum number of rows
-- column: uid       the sample
-- column: original  its caption
-- column: kind      recaption, fused, rewrite or translation
-- column: style     style or language
-- column: text      the synthetic caption
-- column: gate      passed, or the first gate that failed
-- column: failed    all gates that failed
SELECT c.uid, s.caption AS original, c.kind, c.style, c.text, coalesce(c.gate, c.status) AS gate, c.failed
FROM captions c JOIN kept s USING (uid)
WHERE ($kind IS NULL OR c.kind = $kind) AND ($gate IS NULL OR coalesce(c.gate, c.status) = $gate)
ORDER BY c.uid, c.kind, c.style, c.ordinal
LIMIT $limit;
