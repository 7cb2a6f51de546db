-- Where the samples with some uids are in the shards.
SELECT uid, shard, key
FROM published
WHERE uid IN (SELECT unnest($uids::VARCHAR[])) AND key IS NOT NULL
ORDER BY shard
