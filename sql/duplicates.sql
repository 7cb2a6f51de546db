-- Groups of duplicates: the representative, and the duplicates dropped for it.
-- theme: Duplicates
-- param: uid = null [text]  only the group of this sample
-- param: limit = 20         maximum number of groups, largest first
-- column: uid      the representative
-- column: kept     whether it was kept in the end
-- column: dropped  duplicates dropped
-- column: members  their uids; equal to `uid` if URL (or image) and caption are equal
-- column: places   their shard and key in the pool
-- column: caption  the representative's caption
-- column: url      its URL
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
