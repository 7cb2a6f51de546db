-- What `FileTree` lists, in table `files`, with suffixes and stems; and which of it are Hugging Face's tables of captions.
CREATE TABLE files (name VARCHAR, size BIGINT, fingerprint VARCHAR, status VARCHAR, error VARCHAR, is_named BOOLEAN);
CREATE VIEW named AS SELECT *, rowid AS id, lower(regexp_extract(name, '\.([^./]+)$', 1)) AS suffix FROM files;
CREATE VIEW listed AS
SELECT
    *,
    regexp_replace(name, '\.[^./]*$', '') AS stem,
    is_named AND (ends_with(name, '/') OR suffix IN getvariable('image_suffixes')) AS is_image
FROM named;
CREATE VIEW metadata AS
SELECT name, size, if(status = 'ok', fingerprint, error(name || ': ' || error)) AS fingerprint
FROM files
WHERE parse_filename(name) IN ('metadata.csv', 'metadata.jsonl', 'metadata.parquet')
ORDER BY name;
