-- Views over the large tables of this run, for any DuckDB client; stats.duckdb holds the small ones. In the run folder:
--     duckdb -readonly -init views.sql stats.duckdb
-- From elsewhere, and over https:// or s3:// (by the extension httpfs), set the location of the run first:
--     SET VARIABLE run = 's3://bucket/run';
--     .read views.sql
-- The views are temporary: nothing is written. `curate sql DIR` has them too, and can read nothing else.
SET VARIABLE run_is_known = CASE
    WHEN getvariable('run') IS NULL AND (SELECT count(*) FROM glob('manifest.parquet')) = 0
    THEN error('this folder is no run: first SET VARIABLE run = ''path or URL of the run''; or start DuckDB in the run folder')
    ELSE true END;
