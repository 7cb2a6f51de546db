-- A row for each image, with the file of its caption, which is beside it; `used` are the files that are captions.
CREATE TABLE texts AS SELECT arg_min(id, name) AS id, stem FROM listed WHERE suffix = 'txt' GROUP BY stem;
CREATE TABLE used AS SELECT id FROM texts SEMI JOIN (FROM listed WHERE is_image) USING (stem);
CREATE TABLE rows AS
SELECT
    image.name,
    image.size,
    image.fingerprint,
    0 AS number,
    NULL::VARCHAR AS other,
    CASE
        WHEN image.status <> 'ok' THEN image.status
        WHEN file.size > 65536 THEN 'caption_too_long'
        ELSE coalesce(file.status, 'no_caption')
    END AS status,
    CASE
        WHEN image.status <> 'ok' THEN image.error
        WHEN texts.id IS NULL THEN 'there is no .txt of its name beside it'
        ELSE file.error
    END AS error,
    file.name AS text,
    file.size AS text_size,
    file.fingerprint AS text_fingerprint
FROM listed AS image
LEFT JOIN texts USING (stem)
LEFT JOIN files AS file ON file.rowid = texts.id
WHERE image.is_image;
