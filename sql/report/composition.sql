-- Number of pool rows and of kept rows by source, language, format and column of licenses. Rare values are added up.
WITH combined AS (
    SELECT COLUMNS('^(source|language|format|license_group|license|licence_url)$')::VARCHAR,
        count(*) AS pool, count(*) FILTER (kept) AS kept
    FROM verdicts
    GROUP BY ALL
), counted AS (
    SELECT "column", name, sum(pool)::BIGINT AS pool, sum(kept)::BIGINT AS kept
    FROM combined UNPIVOT INCLUDE NULLS (name FOR "column" IN (* EXCLUDE (pool, kept)))
    GROUP BY ALL
), ranked AS (
    SELECT *, count(*) OVER columns AS n, row_number() OVER (PARTITION BY "column" ORDER BY pool DESC, name) AS position
    FROM counted
    WINDOW columns AS (PARTITION BY "column")
    QUALIFY count(name) OVER columns > 0
), grouped AS (
    SELECT "column", if(n > 12 AND position > 11, (n - 11) || ' others', coalesce(name, 'unknown')) AS name,
        min(position) AS position, sum(pool)::BIGINT AS pool, sum(kept)::BIGINT AS kept
    FROM ranked
    GROUP BY ALL
), shared AS (
    SELECT *, pool / sum(pool) OVER columns AS old, coalesce(kept / nullif(sum(kept) OVER columns, 0), 0) AS new
    FROM grouped
    WINDOW columns AS (PARTITION BY "column")
)
SELECT "column", name, pool, kept, kept / pool AS "share kept",
    {'share': old, 'length': old / max(greatest(old, new)) OVER columns, 'style': 'pool'} AS "pool share",
    {'share': new, 'length': new / max(greatest(old, new)) OVER columns} AS "kept share"
FROM shared
WINDOW columns AS (PARTITION BY "column")
ORDER BY list_position(['source', 'language', 'format', 'license_group', 'license', 'licence_url'], "column"), position
