-- A few kept samples from each group, chosen by a hash of the uid, so they never change.
-- theme: Samples to look at
-- param: by = source [column of measured]  column that defines the groups, such as source, language, or format
-- param: each = 3 [positive]               number of samples to show from each group
-- column: group    the group: a value of the column `by`
-- column: kept     number of kept samples in the group
-- column: uid      uid of the sample
-- column: source   name of the source
-- column: caption  caption of the sample
-- column: url      URL of the sample
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
