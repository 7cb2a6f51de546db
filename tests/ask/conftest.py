"""Runs that tests of queries share, and statements that try to leave a run."""

import os
from pathlib import Path

import pytest

from tests.kit.commands import cli, finished, pool, run  # noqa: F401 (fixtures)
from tests.kit.written_runs import kept_open, write_bare, write_small

ATTACKS = r"""COPY (SELECT 1) TO '{run}/new.csv'
COPY (SELECT 1) TO '{out}/new.csv'
COPY samples TO '{table}' (USE_TMP_FILE false)
EXPLAIN ANALYZE {copy}
EXPLAIN (ANALYZE) {copy}
/* c */ EXPLAIN ANALYZE {copy}
EXPLAIN /* c */ ANALYZE {copy}
WITH x AS ({copy}) FROM x
SELECT (WITH x AS ({copy}) SELECT 1)
EXPLAIN ANALYZE WITH x AS ({copy}) FROM x
FROM query('WITH x AS (COPY (SELECT 1) TO ''{table}'' (USE_TMP_FILE false)) FROM x')
FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))
WITH x AS (INSERT INTO stats.entries SELECT * FROM stats.entries RETURNING *) FROM x
WITH x AS (DELETE FROM stats.entries RETURNING *) FROM x
EXPORT DATABASE '{out}/db' | IMPORT DATABASE '{out}' | ATTACH '{out}/new.duckdb' | ATTACH ':memory:' AS m
DETACH stats | USE stats | INSTALL httpfs | LOAD httpfs | SET enable_external_access = true
RESET lock_configuration | PRAGMA database_list | PRAGMA enable_profiling | CREATE TABLE t (a INT)
CREATE TEMP TABLE t (a INT) | CREATE MACRO m() AS 1 | CREATE SECRET s (TYPE s3)
INSERT INTO stats.entries SELECT * FROM stats.entries | UPDATE stats.entries SET kept = 0 | DELETE FROM stats.entries
DROP TABLE stats.entries | ALTER TABLE stats.entries ADD COLUMN x INT | TRUNCATE stats.entries | CALL duckdb_tables()
CHECKPOINT | VACUUM | BEGIN | PREPARE p AS COPY (SELECT 1) TO '{run}/new.csv' | EXECUTE p
SELECT 1; COPY (SELECT 1) TO '{run}/new.csv'
SELECT getenv('HOME') | FROM read_text('/etc/passwd') | FROM read_blob('/proc/self/environ')
FROM read_csv('/etc/passwd') | FROM read_csv('../x.csv') | FROM read_csv('{run}/../out/secret.csv')
FROM read_csv('{run}/link.csv') | FROM read_json('{out}/secret.csv') | FROM read_parquet('{out}/*.parquet')
FROM read_duckdb('{out}/x.duckdb') | FROM glob('/etc/*') | FROM glob('{out}/*') | FROM sniff_csv('{out}/secret.csv')
FROM parquet_metadata('{out}/x.parquet') | FROM '/etc/passwd' | FROM '{out}/secret.csv' | FROM '{run}/link.csv'
SELECT (SELECT content FROM read_text('{out}/secret.csv'))
SELECT * FROM range(3), LATERAL (FROM read_text('{out}/secret.csv'))
DESCRIBE FROM read_csv('{out}/secret.csv') | SUMMARIZE FROM '{out}/secret.csv' | FROM 'http://127.0.0.1:9/x.csv'
FROM enable_logging(storage = 'file', storage_config = {{'path': '{out}/log'}})
FROM enable_profiling(save_location = '{out}/profile.json')
FROM small | FROM checkpoint() | UPDATE EXTENSIONS | FORCE INSTALL httpfs | COPY FROM DATABASE stats TO memory
MERGE INTO stats.entries USING (SELECT 1) ON true WHEN MATCHED THEN DELETE
COMMENT ON TABLE stats.entries IS 'x' | SET VARIABLE x = 1 | ALTER VIEW samples RENAME TO x
CREATE OR REPLACE VIEW samples AS SELECT 1
SELECT 1 LIMIT (SELECT count(*) FROM read_csv('{out}/secret.csv'))
SELECT 1 ORDER BY (SELECT max(content) FROM read_text('{out}/secret.csv'))
SELECT 1 WHERE EXISTS (FROM '{out}/secret.csv')
SELECT list((SELECT content FROM read_text('{out}/secret.csv')))
PIVOT (FROM read_csv('{out}/secret.csv')) ON secret USING count(*)
UNPIVOT (FROM read_csv('{out}/secret.csv')) ON secret INTO NAME n VALUE v
FROM sql_auto_complete('FROM ''{out}/') | FROM query_table('samples') | FROM duckdb_secrets() | FROM '{run}/run.json'
FROM '{run}/tables/samples/*.parquet' | FROM read_parquet('{table}') | FROM parquet_scan('{run}/link.csv')
FORCE CHECKPOINT stats | LOAD '{out}/x.duckdb_extension' | INSTALL httpfs FROM 'http://127.0.0.1:9'
CREATE EXTENSION REPOSITORY r 'http://127.0.0.1:9' | ATTACH 'http://127.0.0.1:9/x.duckdb'
ATTACH OR REPLACE '{run}/stats.duckdb' AS stats | SET GLOBAL allowed_directories = ['/']
SET file_search_path = '/etc' | PRAGMA import_database('{out}') | CALL pragma_version() | DEALLOCATE p | EXECUTE p(1)
SELECT /* ; */ 1; -- \nDROP VIEW samples
SELECT 1 /* */; ATTACH '{out}/new.duckdb'
FROM query('FROM read_text(''{out}/secret.csv'')') | FROM query_table(['samples', '/etc/passwd'])
PIVOT '{out}/secret.csv' ON secret USING count(*) | FROM 'memory://x.csv' | FROM read_ndjson_objects('{out}/*')
FROM duckdb_settings() | FROM duckdb_logs() | .shell touch {out}/new | .read {out}/secret.csv
.system touch {out}/new | .output {out}/new | .once {out}/new | .open {out}/new | .import {out}/secret.csv y | .cd /"""


class Attacked:
    """A run beside a folder with a secret, and the statements that must neither read nor change anything there."""

    def __init__(self, base):
        self.run, self.out = str(base / "run"), str(base / "out")
        table = f"{self.run}/tables/samples/00000.parquet"
        copy = f"COPY (SELECT 1) TO '{table}' (USE_TMP_FILE false)"
        texts = [text.replace("\\n", "\n") for line in ATTACKS.splitlines() for text in line.split(" | ")]
        self.attacks = [text.format(run=self.run, out=self.out, table=table, copy=copy) for text in texts]

    def files(self):
        paths = (path for top in (self.run, self.out) for path in sorted(Path(top).rglob("*")))
        return {str(path): path.read_bytes() for path in paths if path.is_file()}


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The run of `write_small`; do not change it."""
    with kept_open(write_small(str(tmp_path_factory.mktemp("small"))).url) as url:
        yield url


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """The run of `write_bare`; do not change it."""
    with kept_open(write_bare(str(tmp_path_factory.mktemp("bare"))).url) as url:
        yield url


@pytest.fixture(scope="session")
def attacked(tmp_path_factory):
    base = tmp_path_factory.mktemp("attacked")
    attacked = Attacked(base)
    (base / "out").mkdir()
    (base / "out/secret.csv").write_text("secret\n1\n")
    write_small(attacked.run)
    os.symlink(base / "out/secret.csv", base / "run/link.csv")
    with kept_open(attacked.run):
        yield attacked
