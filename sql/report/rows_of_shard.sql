-- Some rows of an input file, and the number of each among all of its rows.
SELECT unit, row, number
FROM (SELECT unit, row, row_number() OVER (ORDER BY unit, row) - 1 AS number FROM samples WHERE shard = $shard)
SEMI JOIN (SELECT unnest($positions::STRUCT(unit INT, row INT)[], recursive := true)) USING (unit, row)
ORDER BY number
