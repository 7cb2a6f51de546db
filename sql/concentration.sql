-- How strongly a few entries dominate: the share of matches of the most frequent ones.
-- theme: Entries and balancing
-- column: entries          number of most frequent entries; the last row has all that occur
-- column: pool_share       their share of all matches in the pool
-- column: survivors_share  share of the matches when balancing began, of the most frequent entries then
-- column: kept_share       share of the matches in the kept set, of the most frequent entries there
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
