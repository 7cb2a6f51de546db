"""stats.duckdb holds tables alone and opens in any client, wherever the folder has moved; its sums are those of the tables."""

import shutil

import duckdb
import pyarrow as pa
import pytest

from curate.base.errors import ConservationError
from curate.base.process import in_threads
from curate.publish.stats_duckdb import TABLES, write_stats
from curate.store.facts import RunFacts
from tests.kit.written_runs import BARE, RULES, RUN, count_drops, write_bare, write_small


@pytest.fixture
def plain(tmp_path):
    """A plain DuckDB connection to the statistics of a small run that has moved since it was built."""
    write_small(str(tmp_path / "built"))
    shutil.move(tmp_path / "built", tmp_path / "moved")
    with duckdb.connect(str(tmp_path / "moved/stats.duckdb"), read_only=True) as connection:
        yield connection


def test_it_holds_tables_alone(plain):
    assert {name for (name,) in plain.execute("SELECT table_name FROM duckdb_tables()").fetchall()} == set(TABLES)
    assert plain.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall() == []
    # older clients can read it
    tags = plain.execute("SELECT tags FROM duckdb_databases() WHERE NOT internal").fetchall()
    assert [tag["storage_version"].split("+")[0] for (tag,) in tags] == ["v1.0.0"]


def test_many_are_written_at_once_and_one_that_fails_leaves_nothing(tmp_path):
    runs = [write_bare(str(tmp_path / str(number)), ["a"] * number) for number in range(1, 4)]
    drops = [count_drops(run) for run in runs]
    facts = RunFacts.model_validate(BARE)
    for _ in in_threads(lambda number: write_stats(runs[number], facts, drops[number]), range(len(runs))):
        pass
    with pytest.raises(KeyError, match="entry_id"):
        write_stats(runs[0], facts, drops[0], pa.table({"of": ["another shape"]}))
    for number, run in enumerate(runs, 1):
        with duckdb.connect(f"{run.url}/stats.duckdb", read_only=True) as connection:
            assert connection.execute("SELECT sum(rows) FROM drops").fetchall() == [(number,)]


def test_what_a_run_does_not_have_is_empty(tmp_path):
    write_bare(str(tmp_path))
    with duckdb.connect(str(tmp_path / "stats.duckdb"), read_only=True) as connection:
        for name in ("entries", "failures"):
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]
        assert connection.execute("SELECT rule, rows FROM funnel ORDER BY position").fetchall() == [
            ("pool", 3), ("failed", 0), ("words", 1), ("duplicate", 0), ("kept", 2),
        ]  # fmt: skip


def test_a_strange_rule_is_a_defect(tmp_path):
    folder = write_small(str(tmp_path))
    with pytest.raises(ConservationError, match="side"):
        write_stats(folder, RunFacts.model_validate(RUN | {"rules": [RULES[0], RULES[2]]}), count_drops(folder))


def test_rules_may_be_called_like_the_ends_of_the_funnel(tmp_path):
    folder = write_bare(str(tmp_path), ["one"])
    rows = folder.read_parquet("tables/decisions/00000.parquet").to_pylist()
    for name in ("pool", "kept"):
        table = folder.read_parquet("tables/decisions/00000.parquet")
        renamed = table.from_pylist([row | {"rule": name} for row in rows], schema=table.schema)
        folder.write_parquet("tables/decisions/00000.parquet", renamed)
        rule = {"name": name, "sql": "words > 2", "threshold": None}
        write_stats(folder, RunFacts.model_validate(BARE | {"rules": [rule]}), count_drops(folder))
        with duckdb.connect(folder.path("stats.duckdb"), read_only=True) as connection:
            rows_of = connection.execute("SELECT kind, rule, rows FROM funnel ORDER BY position").fetchall()
        assert rows_of[0] == ("pool", "pool", 1) and rows_of[-1] == ("kept", "kept", 0)
        assert ("drop", name, 1) in rows_of
