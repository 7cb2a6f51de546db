-- $samples samples, chosen by a hash of the uid: the original, and $texts synthetic captions with the results of the gates.
WITH chosen AS (SELECT uid FROM captions GROUP BY uid ORDER BY md5(uid) LIMIT $samples),
originals AS (SELECT uid, any_value(caption) AS caption FROM kept SEMI JOIN chosen USING (uid) GROUP BY uid),
written AS (
    SELECT *, {'text': coalesce(nullif(text, ''), error), 'label': concat(kind, ' ', style, ': ', CASE
            WHEN gate = 'passed' THEN gate
            WHEN gate <> '' THEN 'failed ' || list_aggregate(failed, 'string_agg', ', ')
            ELSE 'no text: ' || status
        END, ', score ' || round(clip_score, 4))} AS written
    FROM captions
)
SELECT uid, any_value(caption) AS caption, list(written ORDER BY kind, style, ordinal)[1:$texts] AS written
FROM written JOIN originals USING (uid)
GROUP BY uid
ORDER BY md5(uid)
