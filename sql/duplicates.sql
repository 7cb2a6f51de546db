-- Groups of duplicates: each representative, and the duplicates that were dropped.
-- theme: Duplicates
-- param: uid = null [text]  show only the group with this sample; null: all groups
-- param: limit = 20         maximum number of groups, largest first
-- column: uid      uid of the representative
-- column: kept     whether the representative was kept in the end
-- column: dropped  number of duplicates dropped
-- column: members  uids of the duplicates. A uid equals `uid` if both samples have the same caption and the same URL (or image).
-- column: places   shard and key of each duplicate in the pool
-- column: caption  caption of the representative
-- column: url      URL of the representative
WITH wanted AS (
    SELECT unnest([uid, duplicate_of]) FROM decisions WHERE uid = lower($uid)
), groups AS (
    SELECT
        duplicate_of AS uid,
        count(*) AS dropped,
        list(uid ORDER BY unit, row) AS members,
        list(concat_ws(' ', shard, key) ORDER BY unit, row) AS places
    FROM verdicts
    WHERE rule = 'duplicate' AND ($uid IS NULL OR duplicate_of IN (FROM wanted))
    GROUP BY duplicate_of
    ORDER BY dropped DESC, uid
    LIMIT $limit
)
SELECT g.uid, v.kept, g.dropped, g.members, g.places, v.caption, v.url
FROM groups g
LEFT JOIN survivors v ON v.uid = g.uid
ORDER BY g.dropped DESC, g.uid;
