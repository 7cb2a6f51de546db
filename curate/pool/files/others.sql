-- Files that are no rows: to be counted by suffix, which is their `other`.
INSERT INTO rows BY NAME
SELECT name, if(len(suffix) BETWEEN 1 AND 10, suffix, 'other') AS other
FROM listed
ANTI JOIN used USING (id)
WHERE is_named AND NOT is_image;
