-- Number of kept rows by a column, and how many of them only this run keeps.
SELECT {column} AS name, count(*) AS kept, count(o.uid) AS changed
FROM kept LEFT JOIN only_here o USING (uid)
GROUP BY {column}
