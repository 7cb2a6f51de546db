-- The halves of the kept uids, sorted.
SELECT ('0x' || uid[:16])::UBIGINT AS high, ('0x' || uid[17:])::UBIGINT AS low FROM decisions WHERE kept ORDER BY high, low
