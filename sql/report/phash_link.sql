-- Of a group of duplicates and its representative the row nearest to the latter, among those within $most bits of a
-- row's hash.
SELECT uid, bit_count(xor(phash, $phash::UBIGINT)) AS bits
FROM verdicts
WHERE (duplicate_of = $group OR uid = $group) AND bits <= $most AND (unit, row) <> ($unit, $row)
ORDER BY uid <> $group, bit_count(xor(phash, $other::UBIGINT)), bits, uid
LIMIT 1
