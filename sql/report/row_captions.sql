-- The synthetic captions of a row, with the results of the gates.
SELECT
  kind || ' ' || style AS name,
  text,
  coalesce(gate = 'passed', false) AS passed,
  CASE
    WHEN coalesce(gate, '') = '' THEN format('no caption: {} ({})', status, coalesce(error, 'no error'))
    WHEN gate = 'passed' THEN gate
    ELSE 'failed ' || coalesce(array_to_string(failed, ', '), '')
  END AS result
FROM captions
WHERE uid = $uid
ORDER BY kind, style, ordinal
