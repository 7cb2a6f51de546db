-- Rows by the rank of their entry, at some ranks: `rows` is a column of entries.
SELECT '{series}' AS series, rank, rows, format('rank {{:,}}: {{:,}} samples {series}', rank, rows) AS tooltip
FROM (SELECT {rows} AS rows, row_number() OVER (ORDER BY {rows} DESC) AS rank FROM entries WHERE {rows} > 0)
WHERE rank IN (SELECT unnest($ranks::BIGINT[]))
ORDER BY rank
