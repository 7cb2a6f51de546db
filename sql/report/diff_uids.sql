-- The uids that two runs do not list equally often. A number is null if a run does not keep the uid.
SELECT format('{:016x}{:016x}', high, low) AS uid, a.n AS a, b.n AS b
FROM (SELECT high, low, count(*) AS n FROM uids_a GROUP BY ALL) a
FULL JOIN (SELECT high, low, count(*) AS n FROM uids_b GROUP BY ALL) b USING (high, low)
WHERE a.n IS DISTINCT FROM b.n
