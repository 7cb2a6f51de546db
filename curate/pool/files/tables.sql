-- A row for each row of the tables of captions, with the file that it names, from the table's folder or else from `path`;
-- and a row for each image that none names. `used` are the files that are named, and the tables.
CREATE TABLE matched AS
SELECT number, arg_min(id, rank) AS id
FROM (
    SELECT number, id, 0 AS rank FROM captions JOIN listed ON beside = name WHERE is_named
    UNION ALL
    SELECT number, id, 1 FROM captions JOIN listed ON below = name WHERE is_named
)
GROUP BY number;
CREATE TABLE used AS SELECT id FROM matched UNION ALL SELECT id FROM listed SEMI JOIN tables USING (name);
CREATE TABLE rows AS
SELECT
    coalesce(listed.name, captions.file, '') AS name,
    size,
    fingerprint,
    number,
    NULL::VARCHAR AS other,
    if(is_unsafe, 'unsafe_path', coalesce(status, 'no_image')) AS status,
    CASE
        WHEN is_unsafe THEN 'an absolute name, a URL, or one with ..'
        WHEN id IS NULL THEN 'no such file; names are relative to the folder of the table, or to `path`'
        ELSE error
    END AS error,
    NULL::VARCHAR AS text,
    NULL::BIGINT AS text_size,
    NULL::VARCHAR AS text_fingerprint,
    fields
FROM captions
LEFT JOIN matched USING (number)
LEFT JOIN listed USING (id)
UNION ALL BY NAME
SELECT
    name,
    size,
    fingerprint,
    0 AS number,
    if(status = 'ok', 'no_caption', status) AS status,
    coalesce(error, 'no table row names this file') AS error
FROM listed
ANTI JOIN matched USING (id)
WHERE is_image;
