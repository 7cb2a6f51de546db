-- The digest of the lines `sha256  path` for all published files except the report, in the form that sha256sum prints.
SELECT sha256(string_agg(sha256 || '  ' || path || chr(10), '' ORDER BY path)) AS sha256
FROM manifest
WHERE path <> $report
