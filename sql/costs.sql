-- Time, memory, requests, and money that a run used, by step and per kept sample.
-- If the run reused tables from another run, only its own time and requests count. Prices come from the recipe.
-- `curate plan --measure N` estimates the same numbers before a run. Some steps do not come from the recipe: `start`
-- includes the time to compile kernels; `drift` compares at most 4,096 embeddings per source; `audit` and `publish`
-- are counted until run.json is written; `engine` is the CPU time that belongs to no step. The numbers do not include
-- files written after run.json, such as stats.duckdb, or other processes of an engine, such as Spark's Java.
-- theme: Overview
-- column: what            `run`, a step, or a kind of synthetic captions
-- column: seconds         wall time of the run. For steps and captions, the time is added up over units, which may run in parallel.
-- column: requests        number of requests that this run sent to caption engines
-- column: tokens          tokens in prompts and answers
-- column: cost            cost of the requests, from the price in the recipe; null without a price
-- column: kept            number of kept samples; for captions, number of captions that passed all gates
-- column: seconds_each    seconds per kept sample
-- column: tokens_each     tokens per kept sample
-- column: cost_each       cost per kept sample
-- column: core_hours      CPU time of all Python processes, in hours
-- column: gpu_hours       time in which models used a GPU, in hours
-- column: memory_hours    memory of these processes in GB × hours
-- column: shuffled_bytes  approximate number of bytes that the step grouped by key (shuffled)
-- column: reads           number of GET and HEAD requests to the object store of the run folder; 0 for a local folder
-- column: writes          number of PUT and LIST requests to this store
-- column: stored_bytes    number of bytes that the step added to the run folder
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
