-- Drift of the curated set from the pool, by source and model.
-- Sliced Wasserstein distance between embeddings of samples of both; only for runs that keep embeddings.
-- theme: Overview
-- column: source          the source
-- column: model           the model of measure.clip
-- column: side            image or text
-- column: pool_rows       rows of the pool that were compared
-- column: kept_rows       kept rows that were compared
-- column: distance        between the two sets, 0 to 2
-- column: standard_error  of the distance, over random directions
-- column: unchanged       the distance of a random subset of the pool of the same size: no drift
SELECT source, model, side, pool_rows, kept_rows, distance, standard_error, unchanged
FROM drift
ORDER BY source, model, side;
