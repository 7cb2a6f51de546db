-- What a run, its steps and its captions used and cost, in total and per kept sample.
-- A run that reused tables counts only its own time and requests. Prices come from the recipe. `curate plan --measure
-- N` estimates the same before a run. Steps that are not in the recipe: `start` includes compiling kernels; `drift`
-- covers at most 4,096 embeddings per source; `audit` and `publish` end when run.json is written; `engine` is the time
-- outside of steps. Files written after run.json, such as stats.duckdb, and other processes of an engine, such as
-- Spark's Java, are not counted.
-- theme: Overview
-- column: what            the run, a step, or a kind of synthetic captions
-- column: seconds         wall time of the run; for steps and captions, summed over units, which may run in parallel
-- column: requests        requests sent in this run
-- column: tokens          tokens in prompts and answers
-- column: cost            by the price in the recipe; null without a price
-- column: kept            kept samples; for captions, those that passed all gates
-- column: seconds_each    seconds per kept sample
-- column: tokens_each     tokens per kept sample
-- column: cost_each       cost per kept sample
-- column: core_hours      CPU time of all Python processes
-- column: gpu_hours       time that models held a GPU
-- column: memory_hours    GB of memory of these processes × hours
-- column: shuffled_bytes  approximate bytes grouped by key
-- column: reads           GET and HEAD requests to the object store of the run folder; 0 for a local folder
-- column: writes          PUT and LIST requests to it
-- column: stored_bytes    bytes that the step published
WITH work AS (
    SELECT
        0 AS position, 'run' AS what, (SELECT value::DOUBLE FROM run WHERE key = 'seconds') AS seconds,
        (SELECT sum(sent) FROM caption_work) AS requests,
        (SELECT sum(tokens_sent) FROM caption_work) AS tokens,
        (SELECT sum(cost) FROM caption_work) AS cost,
        (SELECT rows FROM funnel WHERE kind = 'kept') AS kept
    UNION ALL
    SELECT
        u.position, u.step, s.seconds, NULL, NULL, NULL, NULL
    FROM (SELECT row_number() OVER () AS position, step FROM used) u LEFT JOIN steps s USING (step)
    UNION ALL
    SELECT 99, kind, sum(seconds), sum(sent), sum(tokens_sent), sum(cost), sum(passed)
    FROM caption_work
    GROUP BY kind
),
of_all AS (
    SELECT step, cpu, gpu, memory, reads, writes, shuffled, stored FROM used
    UNION ALL
    SELECT 'run', sum(cpu), sum(gpu), sum(memory), sum(reads), sum(writes), sum(shuffled), sum(stored) FROM used
)
SELECT
    what, seconds, coalesce(requests, 0) AS requests, coalesce(tokens, 0) AS tokens, cost, kept,
    seconds / nullif(kept, 0) AS seconds_each,
    tokens / nullif(kept, 0) AS tokens_each,
    cost / nullif(kept, 0) AS cost_each,
    cpu / 3600 AS core_hours, gpu / 3600 AS gpu_hours, memory / 3600 AS memory_hours,
    shuffled::BIGINT AS shuffled_bytes, reads::BIGINT AS reads, writes::BIGINT AS writes, stored::BIGINT AS stored_bytes
FROM work LEFT JOIN of_all ON step = what AND position < 99
ORDER BY position, what;
