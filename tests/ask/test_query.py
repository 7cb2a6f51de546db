"""Queries on a run: names and parameters, statements that only read, attempts to leave the run, and output formats."""

import csv
import io
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.library import named_queries
from curate.ask.output import Result, write_result
from curate.ask.query import asking, open_run
from curate.base.errors import RecipeError, RunError
from curate.base.wording import escape
from tests.kit.written_runs import EVIL, NEEDED, OPENED, kept_open, run_query, uid, write_bare, write_small


def ask(url, query, **params):
    return run_query(url, query, params).rows


def shown(result, form):
    file = io.StringIO(newline="")
    write_result(result, form, file)
    return file.getvalue()


# ---- names and parameters


WRONG = [
    ("funel", {}, r"did you mean funnel, \w+ or \w+[?] `curate sql DIR` lists all"), ("host", {}, "did you mean hosts, "),
    ("samples", {}, "FROM samples"), ("funnel", {"limit": 3}, "funnel has no parameters"),
    ("top_entries", {"limt": 3}, "did you mean 'limit'.*parameters of top_entries: limit"),
    ("top_entries", {"limit": "many"}, "needs a number"), ("top_entries", {"limit": "1.5"}, "needs an integer"),
    (f"SELECT {'+'.join(['1'] * 600)}", {}, "nested too deeply"), ("SELECT '\udcff'", {}, "accepted: text in UTF-8"),
    ("SELECT " + "(" * 100_000, {}, "parentheses are nested too deeply"), ("SELEC 1", {}, "syntax error"),
    ("explain", {}, "uid=… is missing"), ("SELECT $a", {}, "a=… is missing"), ("SELECT 1", {"a": 1}, "no parameters"),
    ("SELECT 1; SELECT 2", {}, "2 statements"), ("  ;", {}, "0 statements"), ("SELECT wrds FROM samples", {}, "words"),
    ("SELECT caption::INT FROM samples", {}, "Could not convert"),
    ("FROM pool", {}, "^SQL: there is no table pool; accepted: samples, scores, (.|\n)*exist!\n\nLINE 1"),
    ("FROM Inputs", {}, "^SQL: inputs is a named query: curate sql DIR inputs\n"),
    ("SELECT rows_in FROM funnel", {}, "^SQL: rows_in is a column of the named query funnel: curate sql DIR funnel\n"),
    ("SELECT f.count FROM failures f", {}, "count is a column of the named query failures"),
    ("SELECT rows_in FROM samples", {}, "^SQL: Binder Error"),
    ("SELECT min_side FROM samples", {}, r"^SQL: min_side is in .*measured, .*\nBinder Error"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "params", "message"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_question_names_what_is_accepted(small, text, params, message):
    with pytest.raises(RecipeError, match=message):
        run_query(small, text, params)


def test_a_column_that_only_the_pool_has_is_hinted_at(tmp_path):
    folder = write_small(str(tmp_path))
    shard = folder.read_parquet("shards/00000.parquet")
    folder.write_parquet("shards/00000.parquet", shard.append_column("Licence_URL", pa.nulls(len(shard), pa.string())))
    hint = rf"^SQL: Licence_URL is a column of the pool, .* derive: .*--reuse {folder.url}; .*\nBinder Error: "
    for query in ("SELECT licence_url FROM verdicts", "SELECT v.licence_url FROM verdicts v"):
        with pytest.raises(RecipeError, match=hint):
            run_query(folder.url, query)
    with pytest.raises(RecipeError, match=r"^SQL: Binder Error"):
        run_query(folder.url, "SELECT license FROM verdicts")


def test_parameters_of_sql(small):
    assert ask(small, "SELECT count(*) FROM samples WHERE words > $least", least="3") == [(6,)]
    assert ask(small, "SELECT $a, $b, $c, $d", a="1.5", b="007", c="'12'", d="-3") == [(1.5, "007", "12", -3)]
    assert ask(small, "SELECT rule FROM verdicts WHERE uid = $uid", uid=uid("12").replace("12", "a2")) == [("words",)]


READING = [
    "SELECT rule AS explain FROM funnel", "EXPLAIN SELECT count(*) FROM kept", "explain analyze SELECT 1",
    "EXPLAIN (FORMAT json) FROM kept", "DESCRIBE samples", "SHOW TABLES", "SUMMARIZE scores", "VALUES (1)",
    "FROM range(3)", "TABLE kept", "SELECT * FROM histogram(samples, words)", "SELECT 1 UNION SELECT 2;",
    "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
    "PIVOT kept ON language IN ('en', 'fr') USING count(*)", "SELECT duckdb_tables FROM duckdb_tables()",
    "-- why\nSELECT 1 -- so",
]  # fmt: skip


@pytest.mark.parametrize("text", READING)
def test_what_only_reads_is_accepted(small, text):
    assert run_query(small, text).names


# ---- what a query must not do


@pytest.mark.thorough
def test_sql_stays_in_the_run(attacked, monkeypatch):
    monkeypatch.chdir(attacked.out)
    before, accepted = attacked.files(), []
    for attack in attacked.attacks:
        with suppress(RecipeError):
            accepted.append((attack, run_query(attacked.run, attack)))
        assert attacked.files() == before, attack
    assert not accepted and len(attacked.attacks) == 119


@pytest.mark.thorough
def test_the_connection_itself_is_closed_in(attacked, monkeypatch):
    """The second barrier, without the first: the connection reads and writes no other file."""
    monkeypatch.chdir(attacked.out)
    before = attacked.files()
    others = [
        text for text in attacked.attacks if "tables/samples" not in text
    ]  # only the first barrier protects tables
    others = [text for text in others if any(way in text for way in ("FROM read", "TO '/", "FROM '", "glob"))]
    assert len(others) > 30
    for attack in others:
        with pytest.raises(Exception, match=r"disabled by configuration|Parser Error|does not exist|Cannot"):
            OPENED[attacked.run].execute(attack).fetchall()
    for change in ("SET enable_external_access = true", "SET allowed_paths = ['/']", "RESET lock_configuration"):
        with pytest.raises(Exception, match=r"locked|Cannot"):
            OPENED[attacked.run].execute(change)
    assert attacked.files() == before


# ---- which folders are runs


def test_views_of_decisions_have_scores(small):
    """Each column once, joined with `scores`."""
    for view in ("kept", "dropped", "survivors", "verdicts"):
        found = run_query(small, f"FROM {view}")
        assert len(set(found.names)) == len(found.names) == len({name.removesuffix("_1") for name in found.names})
        assert {"caption", "clip_score", "min_side", "kept", "rule", "draw"} < set(found.names)
        joined = f"FROM {view} v JOIN decisions d USING (unit, row) JOIN scores c USING (unit, row) ORDER BY unit, row"
        direct = f"SELECT rule, clip_score FROM {view} ORDER BY unit, row"
        assert ask(small, direct) == ask(small, f"SELECT d.rule, c.clip_score {joined}") != []


def test_what_is_no_finished_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for name in ("unfinished", "damaged"):
        write_small(str(tmp_path / name))
    (tmp_path / "unfinished/_SUCCESS").unlink()
    (tmp_path / "damaged/tables/samples/00001.parquet").unlink()
    for name, error, message in (
        ("nowhere", RecipeError, "no such folder"), ("file", RecipeError, "no such folder"),
        ("", RecipeError, r"not a run folder.*did you mean .*/run[?] accepted"),
        ("unfinished", RunError, r"no _SUCCESS.*run its recipe again"), ("damaged", RunError, "curate verify"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            run_query(str(tmp_path / name), "funnel")


def test_links(tmp_path):
    """A run may be behind a link and have any name, but none of its files may be a link out of it."""
    folder = write_small(str(tmp_path / "it's [a] rün"))
    os.symlink(folder.url, tmp_path / "link")
    assert ask(str(tmp_path / "link"), "SELECT count(*) FROM kept") == [(4,)]
    assert ask(folder.url, "SELECT count(*) FROM kept") == [(4,)]
    table = Path(folder.url, "tables/samples/00001.parquet")
    table.rename(tmp_path / "elsewhere.parquet")
    os.symlink(tmp_path / "elsewhere.parquet", table)
    with pytest.raises(RunError, match="links to a file outside the run"):
        run_query(folder.url, "funnel")


def test_a_folder_whose_name_is_a_pattern(tmp_path):
    folder = write_small(str(tmp_path / "run[1]*?"))
    write_bare(str(tmp_path / "run1st"))
    query = "SELECT count(*), any_value(published.key) IS NULL FROM samples, published"
    assert ask(folder.url, query) == [(48, False)]
    with pytest.raises(RecipeError):
        ask(folder.url, f"FROM '{tmp_path}/run1st/tables/samples/00000.parquet'")


def test_a_pipe_in_the_place_of_a_file_does_not_block(small, tmp_path):
    for name in ("stats.duckdb", "manifest.parquet", "tables/samples/00000.parquet"):
        folder = shutil.copytree(small, tmp_path / Path(name).stem)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(OSError, match=rf"{name}: is not a regular file"):
            open_run(str(folder))


@pytest.mark.thorough
def test_a_remote_run_gives_the_same_answers(small):
    folder = write_small("memory://remote-run")
    try:
        with kept_open(folder.url):
            for query in named_queries():
                if query.name not in ("shards", "files"):  # digests and sizes of stats.duckdb and run.json
                    params = NEEDED.get(query.name, {})
                    assert ask(folder.url, query.name, **params) == ask(small, query.name, **params)
        with pytest.raises(RecipeError, match="not accepted"):
            run_query(folder.url, "FROM read_text('memory://remote-run/run.json')")
    finally:
        folder.fs.rm("/remote-run", recursive=True)


# ---- output

VALUES = (
    "SELECT sum(phash) AS huge, sum(phash)::DECIMAL(38, 2) AS exact, 'nan'::FLOAT AS nan, '-inf'::DOUBLE AS inf, "
    "1 / 4 AS a, 2 AS a, DATE '2020-01-02' AS day, TIMESTAMP '2020-01-02 03:04:05' AS time, [1, NULL] AS list, "
    "{'x': [1.5, 2], 'y': NULL} AS struct, MAP {'k': 1} AS map, '\\xFF'::BLOB AS blob, true AS yes, NULL AS none, "
    "'{\"q\": 1}'::JSON AS json FROM kept"
)


def test_json_is_one_array_of_objects(small):
    text = shown(run_query(small, VALUES), "json")
    assert json.loads(text) == [
        {
            "huge": 4 * (2**64 - 1), "exact": float(4 * (2**64 - 1)), "nan": None, "inf": None, "a": 0.25, "a_1": 2,
            "day": "2020-01-02", "time": "2020-01-02 03:04:05", "list": [1, None], "struct": {"x": [1.5, 2.0], "y": None},
            "map": {"k": 1}, "blob": "ff", "yes": True, "none": None, "json": '{"q": 1}',
        }
    ]  # fmt: skip
    assert f'"exact": {4 * (2**64 - 1)}.00' in text
    assert shown(run_query(small, "SELECT 1 WHERE false"), "json") == "[]\n"


UBIGINT = f"({2**64 - 1})::UBIGINT"
EXACT = {
    f"({2**127 - 1})::HUGEINT": str(2**127 - 1), f"(-{2**127})::HUGEINT": str(-(2**127)),
    f"({2**128 - 1})::UHUGEINT": str(2**128 - 1), UBIGINT: str(2**64 - 1), "0.1::DOUBLE": "0.1", "1e300::DOUBLE": "1e+300",
    "12345678901234567890.12345678901234::DECIMAL(38, 14)": "12345678901234567890.12345678901234",
    "['nan'::FLOAT, 'inf', '-inf', NULL]": "[null, null, null, null]",
    f"{{'a': [{{'b': {UBIGINT}}}], 'c': 1.10::DECIMAL(9, 2)}}": f'{{"a": [{{"b": {2**64 - 1}}}], "c": 1.10}}',
    f"MAP {{{UBIGINT}: [true]}}": f'{{"{2**64 - 1}": [true]}}', "{'k': [chr(27)]}": r'{"k": ["\u001b"]}',
    "chr(27) || chr(0) || chr(10) || chr(127) || chr(8238) || '\"\\'": r'"\u001b\u0000\n\u007f\u202e\"\\"',
    "TIMESTAMPTZ '2020-01-01 00:00:00+02'": '"2019-12-31 22:00:00+00:00"',
    "'00000000-0000-0000-0000-000000000001'::UUID": '"00000000-0000-0000-0000-000000000001"',
}  # fmt: skip


def test_json_is_exact(small):
    for expression, expected in EXACT.items():
        text = shown(run_query(small, f"SELECT {expression} AS v"), "json")
        assert text == f'[\n{{"v": {expected}}}]\n'
        json.loads(text, parse_constant=pytest.fail)


def test_csv_distinguishes_null_from_empty_text(small, tmp_path):
    values = "(NULL, '', 'a,b'), ('', NULL, '\"'), (NULL, NULL, NULL), (' x', 'y\n', '')"
    result = run_query(small, f"SELECT * FROM (VALUES {values}) v(a, b, c)")
    (tmp_path / "x.csv").write_bytes(shown(result, "csv").encode())
    with duckdb.connect() as connection:
        read = "FROM read_csv(?, header = true, all_varchar = true, nullstr = '', allow_quoted_nulls = false)"
        assert connection.execute(read, [str(tmp_path / "x.csv")]).fetchall() == result.rows
    assert shown(run_query(small, "SELECT unnest(['a', NULL, '']) AS v"), "csv") == 'v\na\n""\n""\n'


def test_rows_are_fetched_lazily(small):
    """The reader of a result larger than memory gets its beginning, and may stop; errors may come late."""
    with asking(small, "SELECT range AS i, repeat('x', 1000) AS text FROM range(1_000_000_000)") as result:
        rows = iter(result.rows)
        assert [next(rows)[0] for _ in range(10_000)] == list(range(10_000))
    query = "SELECT CASE WHEN i < 2000000 THEN '1' ELSE 'x' END::INT AS n FROM range(2000001) r(i)"
    with pytest.raises(RecipeError, match="Could not convert"), asking(small, query) as result:
        list(result.rows)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_survives_csv_and_json(rows):
    result = Result(("a", "b\n\x1b,"), rows)
    assert [tuple(row.values()) for row in json.loads(shown(result, "json"))] == rows
    assert [tuple(row) for row in csv.reader(io.StringIO(shown(result, "csv"), newline=""))] == [result.names, *rows]


@given(st.text())
def test_no_text_steers_a_terminal(text):
    steering = {chr(c) for c in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    assert not steering & set(escape(text))
    for form in ("table", "json"):
        assert not (steering - {"\n"}) & set(shown(Result(("a", text), [("x", text), (text, [text])]), form))


def test_csv_is_escaped_on_a_terminal(small):
    terminal = io.StringIO(newline="")
    terminal.isatty = lambda: True
    result = run_query(small, "SELECT caption FROM kept WHERE caption LIKE 'caption%'")
    write_result(result, "csv", terminal)
    assert "\x1b" not in terminal.getvalue() and "\\x1b[31m" in terminal.getvalue()
    assert EVIL in shown(result, "csv")


def test_a_table_is_aligned():
    rows = [("日本", 5, 0.5), ("a" * 99, 12345, None), ("b", 3217158.2, 0.123456789)]
    lines = shown(Result(("text", "count", "share"), rows, {"count": False, "share": False}), "table").splitlines()
    assert lines[0] == "text" + " " * 82 + "count" + " " * 8 + "share"
    assert [line.split() for line in lines[2:5]] == [
        ["日本", "5", "0.5"], ["a" * 79 + "…", "12345", "NULL"], ["b", "3217158.2", "0.123456789"],
    ]  # fmt: skip
    assert lines[5] == "(3 rows)" and lines[6].startswith("long values are cut")
    assert "cut" not in shown(Result(("text",), [("a" * 80,)]), "table")
    wide = shown(Result(tuple(f"column{i}" for i in range(30)), [tuple(range(30))]), "table").splitlines()
    assert wide[0] == "── row 1 of 1" and wide[1] == "column0   0" and len(wide) == 32


# ---- the command
