-- Where shards have some uids.
SELECT uid, shard, key
FROM published
WHERE uid IN (SELECT unnest($uids::VARCHAR[])) AND key IS NOT NULL
ORDER BY shard
