"""The views over large tables: alike in a connection of ours and by views.sql in any client, wherever the run is."""

import shutil
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.ask.query import open_run
from curate.emit.output_format import find_written
from curate.publish.views import LARGE, PUBLISHED, sql_type, table_files, write_views
from curate.store.facts import read_facts
from tests import kit
from tests.kit.written_runs import write_bare, write_small

VIEWS = [*LARGE, "scored", "published", "verdicts", "measured", "kept", "dropped", "survivors", "matched"]


def client(run, where=None):
    """Another client's connection, read-only, after views.sql."""
    connection = duckdb.connect(str(run / "stats.duckdb"), read_only=True)
    if where is not None:
        connection.execute(where)
    connection.execute((run / "views.sql").read_text())
    return connection


def everything(connection):
    """Columns with types, and rows, of each view."""
    return {
        name: (
            [column[:2] for column in connection.execute(f"DESCRIBE {name}").fetchall()],
            sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=str),
        )
        for name in VIEWS
    }


def test_types_are_those_of_duckdb():
    """Which takes a connection to say so."""
    with duckdb.connect() as connection:
        for columns in (*LARGE.values(), PUBLISHED):
            types = [str(kind) for kind in connection.from_arrow(columns.empty_table()).types]
            assert [sql_type(field.type) for field in columns] == types


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """A small run that has moved since it was built, and is the current folder."""
    write_small(str(tmp_path / "built"))
    shutil.move(tmp_path / "built", tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    return tmp_path / "moved"


def rows(run, sql, where=None):
    with client(run, where) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(params=["small", "bare"])
def either(request, tmp_path):
    (write_small if request.param == "small" else write_bare)(str(tmp_path / "run"))
    yield tmp_path / "run"


def test_another_client_sees_what_ours_does(either):
    ours, theirs = open_run(str(either)), client(either, f"SET VARIABLE run = '{either}'")
    assert everything(ours) == everything(theirs)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("way", ["in the folder", "a variable", "a variable with a slash", "a search path"])
def test_views_follow_the_folder(moved, way, monkeypatch):
    where = {
        "a variable": f"SET VARIABLE run = '{moved}'", "a variable with a slash": f"SET VARIABLE run = '{moved}/'",
        "a search path": f"SET file_search_path = '{moved}'",
    }.get(way)  # fmt: skip
    if where:
        monkeypatch.chdir("/")
    assert rows(moved, "SELECT count(*), count(uid) FROM samples", where) == [(12, 11)]
    assert rows(moved, "SELECT count(*) FROM verdicts WHERE kept", where) == [(4,)]
    shards = [("shards/00000.tar", 3), ("shards/00001.tar", 1)]
    assert rows(moved, "SELECT shard, count(*) FROM published GROUP BY ALL ORDER BY ALL", where) == shards
    assert rows(moved, "SELECT max(phash), sum(phash) FROM samples", where) == [(2**64 - 1, 11 * (2**64 - 1))]


def test_only_what_the_manifest_lists_exists(moved):
    shutil.copy(moved / "tables/samples/00000.parquet", moved / "tables/samples/00009.parquet")
    assert rows(moved, "SELECT count(*) FROM samples") == [(12,)]


def test_a_column_of_the_pool_hides_the_computed_one(tmp_path):
    pool = kit.make_rows(20).slice(0, 20)
    for name in ("aspect", "min_side"):
        pool = pool.append_column(name, pa.array(np.arange(20) + 500.5))
    columns = {"caption": "text", "scores": ["aspect", "min_side"]}
    run = kit.curate(tmp_path, pool, source={"columns": columns}, rules={"aspect": "aspect > 510"})
    assert run.counts["aspect"] == 10
    with open_run(str(run.folder)) as connection:
        found = connection.execute("SELECT aspect, min_side FROM measured ORDER BY aspect").fetchall()
        names = [name for name, *_ in connection.execute("DESCRIBE measured").fetchall()]
    assert found == [(i + 500.5, i + 500.5) for i in range(20)]
    assert names.count("aspect") == names.count("min_side") == 1 and not {"aspect_1", "min_side_1"} & {*names}


def test_duckdbs_own_shell_reads_it(moved):
    """Of an older version than the library, as it may be."""
    module = pytest.importorskip("duckdb_cli", reason="the package duckdb-cli is not installed")
    shell = str(Path(module.__file__).with_name("duckdb"))
    command = [shell, "-readonly", "-csv", "-init", "views.sql", "stats.duckdb"]
    query = "SELECT clipscore, (SELECT rows FROM funnel WHERE rule = 'kept') FROM kept ORDER BY 1;"
    done, write = (
        subprocess.run(command, cwd=moved, input=sql, capture_output=True, text=True, check=False)
        for sql in (query, "DROP TABLE funnel;")
    )
    assert done.stdout.splitlines()[-4:] == ["1.25,4", "1.25,4", "1.5,4", "2.0,4"], done
    assert "read-only" in write.stderr


def test_a_folder_without_a_run_is_refused(moved, monkeypatch):
    monkeypatch.chdir(moved.parent)
    with pytest.raises(duckdb.Error, match="this folder is not a run: first SET VARIABLE run = 'path or URL of"):
        client(moved)


def test_what_a_run_does_not_have_is_empty(tmp_path, monkeypatch):
    write_bare(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("scores", "matches", "members", "matched", "captions", "regions"):
        assert rows(tmp_path, f"SELECT count(*) FROM {name}") == [(0,)]
    assert rows(tmp_path, "SELECT shard, key FROM published") == [("shards/00000.parquet", None)] * 2


def test_a_remote_run_has_the_same_views(tmp_path):
    local, remote = write_small(str(tmp_path)), write_small("memory://views")
    try:
        assert remote.read_bytes("views.sql") == local.read_bytes("views.sql")
        before = local.read_bytes("views.sql")
        write_views(local, local.files(), find_written(read_facts(local)))  # again, as forgetting does
        assert local.read_bytes("views.sql") == before and str(tmp_path).encode() not in before
    finally:
        remote.fs.rm("/views", recursive=True)


def test_the_files_of_each_table():
    names = ["tables/samples/00001.parquet", "tables/samples/00000.parquet", "tables/odd/00000.parquet", "x.parquet"]
    names += ["tables/samples/deep/00000.parquet", "tables/samples/note.txt", "shards/00000.parquet"]
    assert table_files([*names, "shards/00000.tar", "retries.parquet"]) == {
        "samples": ("tables/samples/00000.parquet", "tables/samples/00001.parquet"),
        "published": ("shards/00000.parquet",), "retries": ("retries.parquet",),
    }  # fmt: skip
