-- Time and throughput of each step of the run.
-- Tables that were reused from an older run or were present already are not counted.
-- theme: Overview
-- column: step     measure, match, rules (up to the first top rule), decide, caption, emit
-- column: units    units that it worked on; of emit, shards
-- column: rows     their rows
-- column: seconds  of work, summed over units, which may run in parallel
-- column: share    of all steps' seconds
-- column: speed    rows per second of one worker
SELECT
    step, units, rows, seconds,
    seconds / nullif(sum(seconds) OVER (), 0) AS share,
    rows / nullif(seconds, 0) AS speed
FROM steps
ORDER BY list_position(['measure', 'match', 'rules', 'decide', 'caption', 'emit'], step);
