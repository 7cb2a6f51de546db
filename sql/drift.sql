-- Drift of the curated set from the pool, by source and model.
-- The sliced Wasserstein distance between the embeddings of the pool and those of the kept set. Needs a run that keeps
-- embeddings.
-- theme: Overview
-- column: source          source name
-- column: model           the model in `measure.clip`
-- column: side            image or text
-- column: pool_rows       pool rows compared
-- column: kept_rows       kept rows compared
-- column: distance        distance between the two sets, 0 to 2
-- column: standard_error  standard error of the distance over random directions
-- column: unchanged       distance of a random subset of the pool with the same size, which means no drift
SELECT source, model, side, pool_rows, kept_rows, distance, standard_error, unchanged
FROM drift
ORDER BY source, model, side;
