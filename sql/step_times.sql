-- How long each step of the run worked, and how fast.
-- What was taken from an older run or stood already is not counted.
-- theme: Overview
-- column: step     measure, match, rules (up to the first top rule), decide, caption, emit
-- column: units    units that it worked on; of emit, shards
-- column: rows     their rows
-- column: seconds  of work, summed over units, which may run side by side
-- column: share    of all steps' seconds
-- column: speed    rows a second, of one worker
SELECT
    step, units, rows, seconds,
    seconds / nullif(sum(seconds) OVER (), 0) AS share,
    rows / nullif(seconds, 0) AS speed
FROM steps
ORDER BY list_position(['measure', 'match', 'rules', 'decide', 'caption', 'emit'], step);
