-- The step that dropped each sample that the other run keeps, by uid; $outside if the sample is not in this pool.
SELECT w.uid, coalesce(fate.rule, $outside) AS rule, fate.duplicate_of AS duplicate_of, fate.unit, fate.row
FROM wanted w LEFT JOIN (
    SELECT d.uid, arg_max(
        {'rule': d.rule, 'duplicate_of': d.duplicate_of, 'unit': d.unit, 'row': d.row},
        {'another': d.duplicate_of IS DISTINCT FROM d.uid, 'position': coalesce(f.position, 0)}
    ) AS fate
    FROM decisions d SEMI JOIN wanted USING (uid) LEFT JOIN funnel f USING (rule)
    GROUP BY d.uid
) USING (uid)
ORDER BY w.uid
