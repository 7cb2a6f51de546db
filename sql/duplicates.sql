-- Groups of duplicates: the sample that stands, and those that it replaced.
-- theme: Duplicates
-- param: limit = 20  how many groups, the largest first
-- column: uid      the sample that stands for the group
-- column: kept     whether balancing kept it too
-- column: dropped  how many samples it replaced
-- column: members  their uids; the same uid where URL or image and caption were the same
-- column: places   where they were in the pool: shard and key
-- column: caption  the caption of the sample that stands
-- column: url      its URL
WITH groups AS (
    SELECT
        duplicate_of AS uid,
        count(*) AS dropped,
        list(uid ORDER BY unit, row) AS members,
        list(concat_ws(' ', shard, key) ORDER BY unit, row) AS places
    FROM verdicts
    WHERE rule = 'duplicate'
    GROUP BY duplicate_of
    ORDER BY dropped DESC, uid
    LIMIT $limit
)
SELECT g.uid, v.kept, g.dropped, g.members, g.places, v.caption, v.url
FROM groups g
LEFT JOIN survivors v ON v.uid = g.uid
ORDER BY g.dropped DESC, g.uid;
