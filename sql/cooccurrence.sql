-- How often each class occurs in each context: common and rare combinations.
-- Both are columns of `measured` with names, such as a classifier's class and a context tag. Rows that lack either are
-- left out.
-- theme: Sources, languages and hosts
-- param: class [column of measured]    column with the class, such as source or a classifier's output
-- param: context [column of measured]  column with the context, such as language or a tag
-- param: counter_share = 0.1           contexts with at most this share of their class are marked `counter`
-- param: min_class = 20                minimum number of samples in a class
-- param: limit = null                  maximum number of rows
-- column: class       the class
-- column: context     the context
-- column: pool        pool samples of this class in this context
-- column: kept        kept samples among them
-- column: share       pool, as a share of the class
-- column: kept_share  kept, as a share of the kept samples of the class
-- column: lift        share / the context's share of all samples; above 1, they occur together more often than by chance
-- column: group       `common` for the most frequent context of the class, `counter` for a rare one, else null
WITH pairs AS (
    SELECT struct_extract("measured row", $class) AS class, struct_extract("measured row", $context) AS context, d.kept
    FROM measured AS "measured row" JOIN decisions d USING (unit, row)
), counts AS (
    SELECT
        class, context, count(*) AS pool, count(*) FILTER (kept) AS kept,
        sum(count(*)) OVER of_class AS class_pool,
        sum(count(*) FILTER (kept)) OVER of_class AS class_kept,
        sum(count(*)) OVER (PARTITION BY context) / sum(count(*)) OVER () AS expected,
        row_number() OVER (PARTITION BY class ORDER BY count(*) DESC, context) AS place
    FROM pairs
    WHERE class IS NOT NULL AND context IS NOT NULL
    GROUP BY class, context
    WINDOW of_class AS (PARTITION BY class)
)
SELECT
    class, context, pool, kept,
    pool / class_pool AS share,
    kept / nullif(class_kept, 0) AS kept_share,
    share / expected AS lift,
    CASE WHEN place = 1 THEN 'common' WHEN share <= $counter_share THEN 'counter' END AS "group"
FROM counts
WHERE class_pool >= $min_class
ORDER BY class, pool DESC, context
LIMIT $limit;
