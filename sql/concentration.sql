-- The share of all matches that the most frequent entries have: 1 entry, 10, 100, and more.
-- theme: Entries and balancing
-- column: entries          N, the number of entries to add up. The last row adds up all entries that occur in the pool.
-- column: pool_share       share of all matches in the pool that the N most frequent entries of the pool have
-- column: survivors_share  the same share among the samples left when balancing began, for the N most frequent entries there
-- column: kept_share       the same share in the kept set, for the N most frequent entries there
WITH ranked AS (
    SELECT
        pool, survivors, kept,
        row_number() OVER (ORDER BY pool DESC) AS p,
        row_number() OVER (ORDER BY survivors DESC) AS s,
        row_number() OVER (ORDER BY kept DESC) AS k
    FROM entries
    WHERE pool > 0
), marks AS (
    SELECT DISTINCT least(n, count(*)) AS entries
    FROM ranked, (VALUES (1), (10), (100), (1000), (10000), (1000000000)) AS v(n)
    GROUP BY n
)
SELECT
    m.entries,
    sum(r.pool) FILTER (p <= m.entries) / nullif(sum(r.pool), 0) AS pool_share,
    sum(r.survivors) FILTER (s <= m.entries) / nullif(sum(r.survivors), 0) AS survivors_share,
    sum(r.kept) FILTER (k <= m.entries) / nullif(sum(r.kept), 0) AS kept_share
FROM marks m, ranked r
GROUP BY m.entries
ORDER BY m.entries;
