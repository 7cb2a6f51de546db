-- Distances between the kept set and the pool.
SELECT source, model, side, distance::DECIMAL(18, 5) AS distance, standard_error::DECIMAL(18, 5) AS "standard error",
    unchanged::DECIMAL(18, 5) AS "random subset"
FROM drift
ORDER BY ALL
LIMIT 60
