-- The synthetic captions of $samples samples, chosen by a hash of the uid, each with the original.
WITH chosen AS (SELECT uid FROM captions GROUP BY uid ORDER BY md5(uid) LIMIT $samples),
originals AS (SELECT uid, any_value(caption) AS caption FROM kept SEMI JOIN chosen USING (uid) GROUP BY uid)
FROM captions JOIN originals USING (uid)
ORDER BY md5(uid), kind, style, ordinal
