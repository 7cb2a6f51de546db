-- How many links, article graphics, or files became rows, and why the others did not.
-- theme: Files and failures
-- column: source   name of the source
-- column: outcome  `row` if the link became a row (an image may become two rows); otherwise the reason why it did not, or, for a file, its suffix
-- column: links    number of links, graphics, or files; for `row`, number of rows
-- column: share    this outcome's share of all links and rows of the source
-- column: pages    number of HTML pages or articles in the source
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
