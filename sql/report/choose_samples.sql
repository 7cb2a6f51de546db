-- For each step, the $most rows with the smallest hashes. If several rows have the same uid, only the first counts.
WITH smallest AS (
    SELECT coalesce(d.rule, 'kept') AS step,
        arg_min(
            {'unit': s.unit, 'row': s.row, 'uid': s.uid},
            {'hash': md5(concat_ws('|', coalesce(s.uid, ''), CASE WHEN s.uid IS NULL
                THEN concat_ws('|', s.source, s.key, s.url, s.caption, s.sha256) END)),
             'source': s.source, 'key': s.key, 'url': s.url},
            3 * $most::BIGINT
        ) AS rows
    FROM samples s JOIN decisions d USING (unit, row)
    GROUP BY step
), numbered AS (
    SELECT step, unnest(rows) AS row, generate_subscripts(rows, 1) AS number FROM smallest
), unlike AS (
    FROM numbered
    QUALIFY row_number() OVER (PARTITION BY step, coalesce(row.uid, concat(row.unit, ' ', row.row)) ORDER BY number) = 1
)
SELECT step, list(row ORDER BY number)[1:$most] AS chosen FROM unlike GROUP BY step
