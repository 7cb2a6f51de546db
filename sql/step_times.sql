-- How long each step of the run took, and how many rows per second it processed.
-- The times cover all commands that worked on the run. If two commands repeated the same work, only the longer time
-- counts. Tables that the run reused, and units that a command did not finish, do not count.
-- theme: Overview
-- column: step     measure, match, relate, rules (up to the first rule with `top`), decide, caption, emit
-- column: units    number of units processed; for emit, number of shards
-- column: rows     number of rows in these units
-- column: seconds  wall time, added up over units, which may run in parallel
-- column: share    seconds / seconds of all steps
-- column: speed    rows / seconds
SELECT
    step, units, rows, seconds,
    seconds / nullif(sum(seconds) OVER (), 0) AS share,
    rows / nullif(seconds, 0) AS speed
FROM (SELECT row_number() OVER () AS position, * FROM steps)
ORDER BY position;
