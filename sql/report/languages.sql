-- Samples by measured language, with other columns by language of the entries; languages with the most matches first.
SELECT language, samples, matched, survivors AS "at balance",
    {'count': kept, 'length': kept / greatest(1, max(survivors) OVER ())} AS kept, kept / nullif(survivors, 0) AS rate,
    entries, in_pool AS "in the pool", head, tail, t, tail_share::DOUBLE AS "tail's share"
FROM (FROM {language_balance} b SELECT b.* REPLACE (b.kept AS kept))
WHERE entries > 0
ORDER BY matches DESC, matched DESC, language
