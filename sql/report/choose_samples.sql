-- For each step $most of its rows, those with the smallest hashes.
SELECT coalesce(d.rule, 'kept') AS step,
    arg_min(
        {'unit': s.unit, 'row': s.row, 'uid': s.uid},
        {'hash': md5(concat_ws('|', coalesce(s.uid, ''), CASE WHEN s.uid IS NULL
            THEN concat_ws('|', s.source, s.key, s.url, s.caption, s.sha256) END)),
         'source': s.source, 'key': s.key, 'url': s.url},
        $most::BIGINT
    ) AS chosen
FROM samples s JOIN decisions d USING (unit, row)
GROUP BY step
