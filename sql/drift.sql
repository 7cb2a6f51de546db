-- How far the curated set has drifted from the pool, by source and model.
-- Sliced Wasserstein distance between embeddings of samples of both; of runs that keep embeddings.
-- theme: Overview
-- column: source          the source
-- column: model           the model of measure.clip
-- column: side            image or text
-- column: pool_rows       rows of the pool that were compared
-- column: kept_rows       kept rows that were compared
-- column: distance        between the two samples, 0 to 2
-- column: standard_error  of the distance, by the draw of directions
-- column: unchanged       the distance of a random part of the pool as large: what no drift looks like
SELECT source, model, side, pool_rows, kept_rows, distance, standard_error, unchanged
FROM drift
ORDER BY source, model, side;
