-- The rows that represent duplicates, by uid.
FROM representatives WHERE uid IN (SELECT unnest($uids::VARCHAR[]))
