-- How often curate tried to download a row, and when it last tried.
SELECT attempts, strftime(attempted, '%Y-%m-%d %H:%M:%S') AS last
FROM failures
WHERE unit = $unit AND row = $row AND attempted IS NOT NULL
