-- How often a row's download was attempted, and when last.
SELECT attempts, strftime(attempted, '%Y-%m-%d %H:%M:%S') AS last
FROM failures
WHERE unit = $unit AND row = $row AND attempted IS NOT NULL
