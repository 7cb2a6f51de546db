-- How often each class occurs in each context, to find common and rare combinations.
-- Class and context are any two columns of `measured` with names as values, such as a classifier's class and a context
-- tag. Rows without a class or without a context do not count.
-- theme: Sources, languages and hosts
-- param: class [column of measured]    column that has the class, such as `source` or the output of a classifier
-- param: context [column of measured]  column that has the context, such as `language` or a tag
-- param: counter_share = 0.1           mark a context as `counter` if at most this share of the class has it
-- param: min_class = 20                leave out classes with fewer samples than this
-- param: limit = null                  maximum number of rows
-- column: class       the class
-- column: context     the context
-- column: pool        number of samples in the pool with this class and context
-- column: kept        number of these samples that were kept
-- column: share       share of the class that has this context, in the pool
-- column: kept_share  share of the class that has this context, in the kept set
-- column: lift        share / the context's share of all samples. Above 1, class and context occur together more often than by chance.
-- column: group       `common` for the most frequent context of the class, `counter` for a rare one, otherwise null
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
