-- Cost of a kept sample: time of the run, and requests, tokens and money for captions.
-- A run that reused tables of an older one counts only its own time and requests; prices are those of the recipe.
-- theme: Overview
-- column: what            run, or a kind of synthetic captions
-- column: seconds         wall time of the run; of an engine summed over units, which may run in parallel
-- column: requests        requests sent in this run
-- column: tokens          of their prompts and answers
-- column: cost            by the price in the recipe; null without one
-- column: kept            samples kept; of captions, those that passed all gates
-- column: seconds_each    seconds per kept sample
-- column: tokens_each     tokens per kept sample
-- column: cost_each       cost per kept sample
WITH work AS (
    SELECT
        0 AS position, 'run' AS what, (SELECT value::DOUBLE FROM run WHERE key = 'seconds') AS seconds,
        (SELECT sum(sent) FROM caption_work) AS requests,
        (SELECT sum(tokens_sent) FROM caption_work) AS tokens,
        (SELECT sum(cost) FROM caption_work) AS cost,
        (SELECT rows FROM funnel WHERE kind = 'kept') AS kept
    UNION ALL
    SELECT 1, kind, sum(seconds), sum(sent), sum(tokens_sent), sum(cost), sum(passed)
    FROM caption_work
    GROUP BY kind
)
SELECT
    what, seconds, coalesce(requests, 0) AS requests, coalesce(tokens, 0) AS tokens, cost, kept,
    seconds / nullif(kept, 0) AS seconds_each,
    tokens / nullif(kept, 0) AS tokens_each,
    cost / nullif(kept, 0) AS cost_each
FROM work
ORDER BY position, what;
