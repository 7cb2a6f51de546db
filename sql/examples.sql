-- A few kept samples of each group, chosen by a hash of the uid and so always the same.
-- theme: Samples to look at
-- param: by = source [column of measured]  groups, such as source, language or format
-- param: each = 3 [positive]               samples per group
-- column: group    the group
-- column: kept     kept samples of the group
-- column: uid      the sample
-- column: source   source name
-- column: caption  its caption
-- column: url      its URL
WITH drawn AS (
    SELECT
        unit, row, struct_extract("measured row", $by)::VARCHAR AS "group", count(*) OVER of_group AS kept,
        row_number() OVER (of_group ORDER BY hash(d.uid), d.uid) AS place
    FROM measured AS "measured row" JOIN decisions d USING (unit, row)
    WHERE d.kept
    WINDOW of_group AS (PARTITION BY struct_extract("measured row", $by)::VARCHAR)
)
SELECT n."group", n.kept, s.uid, s.source, s.caption, s.url
FROM drawn n JOIN samples s USING (unit, row)
WHERE n.place <= $each
ORDER BY n.kept DESC, n."group", n.place;
