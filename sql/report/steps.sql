-- Time and throughput of the run's steps.
SELECT step, units, rows AS samples, seconds AS work, {'share': seconds / sum(seconds) OVER ()} AS share,
    round(rows / nullif(seconds, 0))::BIGINT AS "samples per second"
FROM steps
