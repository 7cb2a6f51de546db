-- From a group of duplicates and its representative: the row that is nearest to the representative, among rows whose
-- hash differs in at most $most bits from a given row's.
SELECT uid, bit_count(xor(phash, $phash::UBIGINT)) AS bits
FROM verdicts
WHERE (duplicate_of = $group OR uid = $group) AND bits <= $most AND (unit, row) <> ($unit, $row)
ORDER BY uid <> $group, bit_count(xor(phash, $other::UBIGINT)), bits, uid
LIMIT 1
