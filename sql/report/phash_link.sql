-- Of a group of duplicates the row nearest to another, among those within $most bits of a row's hash.
SELECT uid, bit_count(xor(phash, $phash::UBIGINT)) AS bits
FROM verdicts
WHERE duplicate_of = $group AND bits <= $most AND (unit, row) <> ($unit, $row)
ORDER BY bit_count(xor(phash, $other::UBIGINT)), bits, uid
LIMIT 1
