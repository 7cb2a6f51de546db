-- Which share of a language's matches belongs to entries with at most a count, for about $points counts.
SELECT survivors AS rows, sum(sum(survivors)) OVER (ORDER BY survivors) / sum(sum(survivors)) OVER () AS share,
    format('{}: {:.2f}% up to {:,}', $label, 100 * share, rows) AS tooltip,
    row_number() OVER (ORDER BY survivors) AS number, count(*) OVER () AS counts
FROM entries
WHERE language = $language AND survivors > 0
GROUP BY survivors
QUALIFY number % greatest(1, counts // $points) = 0 OR number = counts
ORDER BY rows
