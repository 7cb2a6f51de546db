-- How many uids shards have more or less often than `decisions` keeps them.
SELECT count(*) AS uids
FROM (SELECT uid, count(*) AS n FROM published GROUP BY uid) p
FULL JOIN (SELECT uid, count(*) AS n FROM decisions WHERE kept GROUP BY uid) k USING (uid)
WHERE p.n IS DISTINCT FROM k.n
