-- What a kept sample cost: time of the run, and of captions requests, tokens and money.
-- A run that took measurements from an older one counts its own time alone; prices are the recipe's.
-- theme: Overview
-- column: what            run, or a kind of captions
-- column: seconds         of the run by the clock; of an engine summed over units, which may run side by side
-- column: requests        texts that were asked for in this run
-- column: tokens          of prompts and answers
-- column: cost            by the recipe's price; null without one
-- column: kept            samples kept; of captions, texts that passed their gates
-- column: seconds_each    seconds, for each that was kept
-- column: tokens_each     tokens, for each that was kept
-- column: cost_each       cost, for each that was kept
WITH work AS (
    SELECT
        0 AS position, 'run' AS what, (SELECT value::DOUBLE FROM run WHERE key = 'seconds') AS seconds,
        (SELECT sum(sent) FROM caption_work) AS requests,
        (SELECT sum(tokens_in + tokens_out) FROM caption_work) AS tokens,
        (SELECT sum(cost) FROM caption_work) AS cost,
        (SELECT rows FROM funnel WHERE kind = 'kept') AS kept
    UNION ALL
    SELECT 1, kind, sum(seconds), sum(sent), sum(tokens_in + tokens_out), sum(cost), sum(passed)
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
