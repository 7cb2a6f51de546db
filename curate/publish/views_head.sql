-- Views over the large tables of this run, for any DuckDB client; stats.duckdb has the small tables. In the run folder, start:
--     duckdb -readonly -init views.sql stats.duckdb
-- In another folder, or for a run at https:// or s3:// (with the extension httpfs), set the location of the run first:
--     SET VARIABLE run = 's3://bucket/run';
--     .read views.sql
-- The views are temporary: nothing is written. `curate sql DIR` also has these views, and can read no other files.
SET VARIABLE run_is_known = CASE
    WHEN getvariable('run') IS NULL AND (SELECT count(*) FROM glob('manifest.parquet')) = 0
    THEN error('this folder is not a run: first SET VARIABLE run = ''path or URL of the run''; or start DuckDB in the run folder')
    ELSE true END;
