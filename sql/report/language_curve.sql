-- The share of a language's matches that entries up to a count have, at about $points counts.
SELECT survivors AS rows, sum(sum(survivors)) OVER (ORDER BY survivors) / sum(sum(survivors)) OVER () AS share,
    row_number() OVER (ORDER BY survivors) AS place, count(*) OVER () AS places
FROM entries
WHERE language = $language AND survivors > 0
GROUP BY survivors
QUALIFY place % greatest(1, places // $points) = 0 OR place = places
ORDER BY rows
