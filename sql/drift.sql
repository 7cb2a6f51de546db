-- How far the kept set's embeddings differ from the pool's, by source and model.
-- The distance is the sliced Wasserstein distance between the pool's embeddings and the kept set's embeddings. The run
-- must keep its embeddings.
-- theme: Overview
-- column: source          name of the source
-- column: model           model in `measure.clip`
-- column: side            which embeddings are compared: image or text
-- column: pool_rows       number of pool rows compared
-- column: kept_rows       number of kept rows compared
-- column: distance        distance between the two sets of embeddings, from 0 to 2
-- column: standard_error  standard error of the distance, which is computed along random directions
-- column: unchanged       distance between the pool and a random part of it that is as large as the kept set. If `distance` is similar to this, there is no drift.
SELECT source, model, side, pool_rows, kept_rows, distance, standard_error, unchanged
FROM drift
ORDER BY source, model, side;
