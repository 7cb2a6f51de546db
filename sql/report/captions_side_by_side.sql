-- The synthetic captions of $samples samples, chosen by a hash of the uid, each with the original and what became of it.
WITH chosen AS (SELECT uid FROM captions GROUP BY uid ORDER BY md5(uid) LIMIT $samples),
originals AS (SELECT uid, any_value(caption) AS caption FROM kept SEMI JOIN chosen USING (uid) GROUP BY uid)
SELECT uid, caption, text, error, concat(kind, ' ', style, ': ', CASE
        WHEN gate = 'passed' THEN gate
        WHEN gate <> '' THEN 'failed ' || list_aggregate(failed, 'string_agg', ', ')
        ELSE 'no text: ' || status
    END, ', score ' || round(clip_score, 4)) AS label
FROM captions JOIN originals USING (uid)
ORDER BY md5(uid), kind, style, ordinal
