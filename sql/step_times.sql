-- Time and throughput of each step of the run.
-- Of all commands that the run took: what two of them computed counts once, by the longer time. Tables reused from an older run are not
-- counted, nor is a unit that a command left unfinished. Wall time is not CPU time.
-- theme: Overview
-- column: step     measure, match, relate, rules (up to the first top rule), decide, caption, emit
-- column: units    units that it worked on; of emit, shards
-- column: rows     their rows
-- column: seconds  wall time of each unit, summed; units run in parallel, so it is not the run's time
-- column: share    of all steps' seconds
-- column: speed    rows per second of that time
SELECT
    step, units, rows, seconds,
    seconds / nullif(sum(seconds) OVER (), 0) AS share,
    rows / nullif(seconds, 0) AS speed
FROM (SELECT row_number() OVER () AS position, * FROM steps)
ORDER BY position;
