-- The digest of the lines `sha256  path` of all published files but the report, as sha256sum prints them.
SELECT sha256(string_agg(sha256 || '  ' || path || chr(10), '' ORDER BY path)) AS sha256
FROM manifest
WHERE path <> $report
