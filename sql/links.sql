-- Links to images, graphics of articles, files of folders: which are rows, why others not.
-- theme: Files and failures
-- column: source   source name
-- column: outcome  `row` (an image may have two), the reason why a link is no row, or a file's suffix
-- column: links    links to images, graphics, or files; for `row`, rows
-- column: share    share of the source's links and rows
-- column: pages    HTML pages or articles in the source
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
