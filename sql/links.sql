-- Links to images, graphics of articles, files of folders: which are rows, why others not.
-- theme: Files and failures
-- column: source   the source's name in the recipe
-- column: outcome  `row` (an image may have two), or why a link is no row; of a file its suffix
-- column: links    links to images, graphics, or files; of `row`, rows
-- column: share    of the links of the source, its rows too
-- column: pages    pages of HTML, or articles, in the source
WITH by_source AS (
    SELECT unnest(map_entries(value::JSON::MAP(VARCHAR, MAP(VARCHAR, BIGINT)))) AS of FROM run WHERE key = 'links'
), counted AS (
    SELECT source, n.key AS name, n.value AS count
    FROM (SELECT of.key AS source, unnest(map_entries(of.value)) AS n FROM by_source)
)
SELECT
    source,
    CASE name WHEN 'rows' THEN 'row' ELSE name END AS outcome,
    count AS links,
    count / sum(count) OVER (PARTITION BY source) AS share,
    (SELECT p.count FROM counted p WHERE p.source = c.source AND p.name = 'pages') AS pages
FROM counted c
WHERE name NOT IN ('pages', 'images')
ORDER BY source, name <> 'rows', links DESC, outcome;
