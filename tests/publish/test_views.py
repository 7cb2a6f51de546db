"""The views over large tables: alike in a connection of ours and by views.sql in any client, wherever the run is."""

import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from curate.ask.query import open_run
from curate.emit.output_format import find_written
from curate.publish.views import LARGE, PUBLISHED, sql_type, table_files, write_views
from curate.recipe.files import shipped_folder
from curate.store.facts import read_facts
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
def moved(tmp_path):
    """A small run that has moved since it was built."""
    write_small(str(tmp_path / "built"))
    shutil.move(tmp_path / "built", tmp_path / "moved")
    return tmp_path / "moved"


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
        "a variable": f"SET VARIABLE run = '{moved}'",
        "a variable with a slash": f"SET VARIABLE run = '{moved}/'",
        "a search path": f"SET file_search_path = '{moved}'",
    }.get(way)
    monkeypatch.chdir(moved if where is None else "/")
    connection = client(moved, where)
    assert connection.execute("SELECT count(*), count(uid) FROM samples").fetchall() == [(12, 11)]
    assert connection.execute("SELECT count(*) FROM verdicts WHERE kept").fetchall() == [(4,)]
    assert connection.execute("SELECT count(*) FROM manifest").fetchall()[0][0] > 10
    assert connection.execute("SELECT shard, count(*) FROM published GROUP BY ALL ORDER BY ALL").fetchall() == [
        ("shards/00000.tar", 3),
        ("shards/00001.tar", 1),
    ]
    connection.close()


def test_only_what_the_manifest_lists_exists(moved, monkeypatch):
    shutil.copy(moved / "tables/samples/00000.parquet", moved / "tables/samples/00009.parquet")
    monkeypatch.chdir(moved)
    connection = client(moved)
    assert connection.execute("SELECT count(*) FROM samples").fetchall() == [(12,)]
    connection.close()


def test_duckdbs_own_shell_reads_it(moved):
    """Of an older version than the library, as it may be."""
    module = pytest.importorskip("duckdb_cli", reason="the package duckdb-cli is not installed")
    command = [
        str(Path(module.__file__).with_name("duckdb")),
        "-readonly",
        "-csv",
        "-init",
        "views.sql",
        "stats.duckdb",
    ]
    query = "SELECT clipscore, (SELECT rows FROM funnel WHERE rule = 'kept') FROM kept ORDER BY 1;"
    done = subprocess.run(command, cwd=moved, input=query, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-4:] == ["1.25,4", "1.25,4", "1.5,4", "2.0,4"], done
    with_write = subprocess.run(
        command, cwd=moved, input="DROP TABLE funnel;", capture_output=True, text=True, check=False
    )
    assert "read-only" in with_write.stderr


def test_it_says_where_to_set_the_run(moved, monkeypatch):
    monkeypatch.chdir(moved.parent)
    with pytest.raises(duckdb.Error, match="this folder is no run: first SET VARIABLE run = 'path or URL of the run'"):
        client(moved)
    monkeypatch.chdir(moved)
    found = client(moved)
    assert found.execute("SELECT getvariable('run'), (SELECT count(*) FROM kept)").fetchall() == [(None, 4)]
    found.close()


def test_large_numbers_survive(moved):
    connection = client(moved, f"SET VARIABLE run = '{moved}'")
    assert connection.execute("SELECT max(phash), sum(phash) FROM samples").fetchall() == [
        (2**64 - 1, 11 * (2**64 - 1))
    ]
    connection.close()


def test_what_a_run_does_not_have_is_empty(tmp_path, monkeypatch):
    write_bare(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    connection = client(tmp_path)
    for name in ("scores", "matches", "members", "matched", "captions", "regions"):
        assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]
    assert connection.execute("SELECT shard, key FROM published").fetchall() == [("shards/00000.parquet", None)] * 2
    connection.close()


def test_a_remote_run_has_the_same_views(tmp_path):
    local, remote = write_small(str(tmp_path)), write_small("memory://views")
    try:
        assert remote.read_bytes("views.sql") == local.read_bytes("views.sql")
        before = local.read_bytes("views.sql")
        write_views(
            local, local.files(), find_written(read_facts(local))
        )  # as takedown does: what describes a run is written again
        assert local.read_bytes("views.sql") == before and str(tmp_path).encode() not in before
    finally:
        remote.fs.rm("/views", recursive=True)


def test_files_are_told_apart_by_place():
    names = ["tables/samples/00001.parquet", "tables/samples/00000.parquet", "tables/odd/00000.parquet", "x.parquet"]
    names += [
        "tables/samples/deep/00000.parquet",
        "tables/samples/note.txt",
        "shards/00000.parquet",
        "shards/00000.tar",
        "retries.parquet",
    ]
    assert table_files(names) == {
        "samples": ("tables/samples/00000.parquet", "tables/samples/00001.parquet"),
        "published": ("shards/00000.parquet",),
        "retries": ("retries.parquet",),
    }


def test_the_sql_folder_is_found():
    assert (shipped_folder("sql") / "views.sql").is_file()
