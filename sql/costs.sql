-- What a run, its steps and its captions used and cost, in all and for each kept sample.
-- A run that reused tables of an older one counts only its own time and requests; prices are those of the recipe. `curate plan --measure N` says the same
-- before a run. Steps: `start`, with the compiling of kernels; `drift`, of at most 4,096 embeddings of each source; `audit` and `publish`, up to where run.json is written; `engine`, what no step did.
-- What is written after it, such as stats.duckdb, is not counted: 0.6 s of CPU with 400,000 entries. What an engine's own processes use, such as Spark's Java, is not counted.
-- theme: Overview
-- column: what            run, a step, or a kind of synthetic captions
-- column: seconds         wall time of the run; of steps and engines summed over units, which may run in parallel
-- column: requests        requests sent in this run
-- column: tokens          of their prompts and answers
-- column: cost            by the price in the recipe; null without one
-- column: kept            samples kept; of captions, those that passed all gates
-- column: seconds_each    seconds per kept sample
-- column: tokens_each     tokens per kept sample
-- column: cost_each       cost per kept sample
-- column: core_hours      CPU time of all processes in Python
-- column: gpu_hours       time that models kept a GPU to themselves
-- column: memory_hours    GB of these processes times hours
-- column: shuffled_bytes  bytes that were brought together by key, about
-- column: reads           requests to the store of the run folder: GET and HEAD; 0 for a local one
-- column: writes          requests likewise: PUT and LIST
-- column: stored_bytes    bytes of what the step published
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
