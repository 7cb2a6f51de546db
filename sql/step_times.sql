-- Time and throughput of each step of the run.
-- Covers all commands that worked on the run. Work that two commands repeated counts once, by the longer time. Tables
-- reused from an older run and units that a command left unfinished are not counted.
-- theme: Overview
-- column: step     measure, match, relate, rules (up to the first top rule), decide, caption, emit
-- column: units    units processed; for emit, shards
-- column: rows     their rows
-- column: seconds  wall time summed over units, which may run in parallel
-- column: share    share of the seconds of all steps
-- column: speed    rows / seconds
SELECT
    step, units, rows, seconds,
    seconds / nullif(sum(seconds) OVER (), 0) AS share,
    rows / nullif(seconds, 0) AS speed
FROM (SELECT row_number() OVER () AS position, * FROM steps)
ORDER BY position;
