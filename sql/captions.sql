-- Synthetic captions and their originals, with the gates that each one failed.
-- theme: Captions
-- param: kind = null  show only this kind: recaption, fused, rewrite, or translation; null: all
-- param: gate = null  show only captions with this result: `passed`, or the name of a gate; null: all
-- param: limit = 20   maximum number of rows
-- column: uid       uid of the sample
-- column: original  original caption of the sample
-- column: kind      kind of caption: recaption, fused, rewrite, or translation
-- column: style     name of the style; for a translation, its language
-- column: text      the synthetic caption
-- column: gate      the result: `passed`, or the first gate that failed
-- column: failed    names of all gates that failed
SELECT c.uid, s.caption AS original, c.kind, c.style, c.text, coalesce(c.gate, c.status) AS gate, c.failed
FROM captions c JOIN kept s USING (uid)
WHERE ($kind IS NULL OR c.kind = $kind) AND ($gate IS NULL OR coalesce(c.gate, c.status) = $gate)
ORDER BY c.uid, c.kind, c.style, c.ordinal
LIMIT $limit;
