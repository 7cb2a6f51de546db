"""Questions to a run: names and parameters, what only reads and what tries to leave the run, and how answers are printed."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.library import named_queries
from curate.ask.output import Result, write_result
from curate.ask.query import answer, asking, open_run
from curate.base.errors import RecipeError, RunError
from curate.base.wording import escape
from curate.cli.common import Format
from curate.cli.sql import sql
from tests.kit.written_runs import EVIL, NEEDED, OPENED, kept_open, run_query, uid, write_bare, write_small


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("small"))
    write_small(url)
    with kept_open(url):
        yield url


def ask(url, query, **params):
    return run_query(url, query, params).rows


def shown(result, form):
    file = io.StringIO(newline="")
    write_result(result, form, file)
    return file.getvalue()


# ---- names and parameters


@pytest.mark.parametrize(
    ("text", "params", "message"),
    [
        ("funel", {}, r"did you mean funnel, \w+ or \w+[?] `curate sql DIR` lists all"),
        ("host", {}, "did you mean hosts, "),
        ("zzzz", {}, r"did you mean \w+, \w+ or \w+[?]"),
        ("samples", {}, "FROM samples"),
        ("top_entries", {"limt": 3}, "did you mean 'limit'.*parameters of top_entries: limit"),
        ("funnel", {"limit": 3}, "funnel has no parameters"),
        ("top_entries", {"limit": "many"}, "needs a number"),
        ("top_entries", {"limit": "1.5"}, "needs an integer"),
        (f"SELECT {'+'.join(['1'] * 600)}", {}, "nested too deeply"),
        ("SELECT '\udcff'", {}, "accepted: text in UTF-8"),
        ("explain", {}, "uid=… is missing"),
        ("SELECT $a", {}, "a=… is missing"),
        ("SELECT 1", {"a": 1}, "no parameters"),
        ("SELECT 1; SELECT 2", {}, "2 statements"),
        ("  ;", {}, "0 statements"),
        ("SELEC 1", {}, "syntax error"),
        ("SELECT wrds FROM samples", {}, "words"),
        ("SELECT caption::INT FROM samples", {}, "Could not convert"),
        ("FROM pool", {}, "^SQL: there is no table pool; accepted: samples, scores, (.|\n)*exist!\n\nLINE 1"),
        ("FROM Inputs", {}, "^SQL: inputs is a named query: curate sql DIR inputs\n"),
        (
            "SELECT rows_in FROM funnel",
            {},
            "^SQL: rows_in is a column of the named query funnel: curate sql DIR funnel\n",
        ),
        ("SELECT f.count FROM failures f", {}, "count is a column of the named query failures"),
        ("SELECT rows_in FROM samples", {}, "^SQL: Binder Error"),
        ("SELECT min_side FROM samples", {}, r"^SQL: min_side is in .*measured, .*\nBinder Error"),
    ],
)
def test_a_wrong_question_says_what_is_accepted(small, text, params, message):
    with pytest.raises(RecipeError, match=message):
        run_query(small, text, params)


def test_a_column_that_the_pool_alone_has_is_hinted_at(tmp_path):
    folder = write_small(str(tmp_path))
    shard = folder.read_parquet("shards/00000.parquet")
    licences = pa.nulls(len(shard), pa.string())
    folder.write_parquet("shards/00000.parquet", shard.append_column("Licence_URL", licences))
    hint = (
        "SQL: Licence_URL is a column of the pool that no rule named, so it is not in this run's tables: write "
        "derive: {NAME: Licence_URL}, or a rule that names it, and run with --out NEW --reuse "
        f"{folder.url}; nothing is measured again\nBinder Error: "
    )
    for query in ("SELECT licence_url FROM verdicts", "SELECT v.licence_url FROM verdicts v"):
        with pytest.raises(RecipeError) as raised:
            run_query(folder.url, query, {})
        assert str(raised.value).startswith(hint)
    with pytest.raises(RecipeError, match=r"^SQL: Binder Error"):
        run_query(folder.url, "SELECT license FROM verdicts", {})


def test_parameters_of_sql(small):
    assert ask(small, "SELECT count(*) FROM samples WHERE words > $least", least="3") == [(6,)]
    assert ask(small, "SELECT $a, $b, $c, $d", a="1.5", b="007", c="'12'", d="-3") == [(1.5, "007", "12", -3)]
    assert ask(small, "SELECT rule FROM verdicts WHERE uid = $uid", uid=uid("12").replace("12", "a2")) == [("words",)]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT rule AS explain FROM funnel", "EXPLAIN SELECT count(*) FROM kept", "explain analyze SELECT 1", "EXPLAIN (FORMAT json) FROM kept",
        "DESCRIBE samples", "SHOW TABLES", "SUMMARIZE scores", "VALUES (1)", "FROM range(3)", "TABLE kept",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
        "SELECT * FROM histogram(samples, words)", "PIVOT kept ON language IN ('en', 'fr') USING count(*)",
        "SELECT 1 UNION SELECT 2;", "SELECT duckdb_tables FROM duckdb_tables()", "-- why\nSELECT 1 -- so",
    ],
)  # fmt: skip
def test_what_only_reads_is_accepted(small, text):
    assert run_query(small, text).names


# ---- what a query must not do

ATTACKS = [
    "COPY (SELECT 1) TO '{run}/new.csv'",
    "COPY samples TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)",
    "COPY (SELECT 1) TO '{out}/new.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)",
    "/* c */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)",
    "EXPLAIN /* c */ ANALYZE COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)",
    "WITH x AS (COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)) FROM x",
    "SELECT (WITH x AS (COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)) SELECT 1)",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{run}/tables/samples/00000.parquet' (USE_TMP_FILE false)) FROM x",
    "FROM query('WITH x AS (COPY (SELECT 1) TO ''{run}/tables/samples/00000.parquet'' (USE_TMP_FILE false)) FROM x')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "WITH x AS (INSERT INTO stats.entries SELECT * FROM stats.entries RETURNING *) FROM x",
    "EXPORT DATABASE '{out}/db'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}/new.duckdb'",
    "ATTACH ':memory:' AS m",
    "DETACH stats",
    "USE stats",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CREATE TABLE t (a INT)",
    "CREATE TEMP TABLE t (a INT)",
    "CREATE MACRO m() AS 1",
    "CREATE SECRET s (TYPE s3)",
    "INSERT INTO stats.entries SELECT * FROM stats.entries",
    "UPDATE stats.entries SET kept = 0",
    "DELETE FROM stats.entries",
    "DROP TABLE stats.entries",
    "ALTER TABLE stats.entries ADD COLUMN x INT",
    "TRUNCATE stats.entries",
    "CALL duckdb_tables()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "PREPARE p AS COPY (SELECT 1) TO '{run}/new.csv'",
    "EXECUTE p",
    "SELECT 1; COPY (SELECT 1) TO '{run}/new.csv'",
    "SELECT getenv('HOME')",
    "FROM read_text('/etc/passwd')",
    "FROM read_blob('/proc/self/environ')",
    "FROM read_csv('/etc/passwd')",
    "FROM read_csv('../x.csv')",
    "FROM read_csv('{run}/../{name}/secret.csv')",
    "FROM read_csv('{run}/link.csv')",
    "FROM read_json('{out}/secret.csv')",
    "FROM read_parquet('{out}/*.parquet')",
    "FROM read_duckdb('{out}/x.duckdb')",
    "FROM glob('/etc/*')",
    "FROM glob('{out}/*')",
    "FROM sniff_csv('{out}/secret.csv')",
    "FROM parquet_metadata('{out}/x.parquet')",
    "FROM '/etc/passwd'",
    "FROM '{out}/secret.csv'",
    "FROM '{run}/link.csv'",
    "SELECT (SELECT content FROM read_text('{out}/secret.csv'))",
    "SELECT * FROM range(3), LATERAL (FROM read_text('{out}/secret.csv'))",
    "DESCRIBE FROM read_csv('{out}/secret.csv')",
    "SUMMARIZE FROM '{out}/secret.csv'",
    "FROM 'http://127.0.0.1:9/x.csv'",
    "FROM enable_logging(storage = 'file', storage_config = {{'path': '{out}/log'}})",
    "FROM enable_profiling(save_location = '{out}/profile.json')",
    "FROM small",
    "FROM checkpoint()",
    "UPDATE EXTENSIONS",
    "FORCE INSTALL httpfs",
    "COPY FROM DATABASE stats TO memory",
    "MERGE INTO stats.entries USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
    "COMMENT ON TABLE stats.entries IS 'x'",
    "SET VARIABLE x = 1",
    "ALTER VIEW samples RENAME TO x",
    "CREATE OR REPLACE VIEW samples AS SELECT 1",
    "SELECT 1 LIMIT (SELECT count(*) FROM read_csv('{out}/secret.csv'))",
    "SELECT 1 ORDER BY (SELECT max(content) FROM read_text('{out}/secret.csv'))",
    "SELECT 1 WHERE EXISTS (FROM '{out}/secret.csv')",
    "SELECT list((SELECT content FROM read_text('{out}/secret.csv')))",
    "PIVOT (FROM read_csv('{out}/secret.csv')) ON secret USING count(*)",
    "UNPIVOT (FROM read_csv('{out}/secret.csv')) ON secret INTO NAME n VALUE v",
    "FROM sql_auto_complete('FROM ''{out}/')",
    "FROM query_table('samples')",
    "FROM duckdb_secrets()",
    "FROM '{run}/run.json'",
    "FROM '{run}/tables/samples/*.parquet'",
    "FROM read_parquet('{run}/tables/samples/00000.parquet')",
    "FROM parquet_scan('{run}/link.csv')",
    "FORCE CHECKPOINT stats",
    "LOAD '{out}/x.duckdb_extension'",
    "INSTALL httpfs FROM 'http://127.0.0.1:9'",
    "CREATE EXTENSION REPOSITORY r 'http://127.0.0.1:9'",
    "ATTACH 'http://127.0.0.1:9/x.duckdb'",
    "ATTACH OR REPLACE '{run}/stats.duckdb' AS stats",
    "SET GLOBAL allowed_directories = ['/']",
    "SET file_search_path = '/etc'",
    "PRAGMA import_database('{out}')",
    "CALL pragma_version()",
    "DEALLOCATE p",
    "EXECUTE p(1)",
    "WITH x AS (DELETE FROM stats.entries RETURNING *) FROM x",
    "SELECT /* ; */ 1; -- \nDROP VIEW samples",
    "SELECT 1 /* */; ATTACH '{out}/new.duckdb'",
    "FROM query('FROM read_text(''{out}/secret.csv'')')",
    "FROM query_table(['samples', '/etc/passwd'])",
    "PIVOT '{out}/secret.csv' ON secret USING count(*)",
    "FROM 'memory://x.csv'",
    "FROM read_ndjson_objects('{out}/*')",
    "FROM duckdb_settings()",
    "FROM duckdb_logs()",
    ".shell touch {out}/new",
    ".read {out}/secret.csv",
]


# Files that the run reads itself are protected by the first barrier alone.
OUTSIDE = [
    attack
    for attack in ATTACKS
    if any(way in attack for way in ("FROM read", "TO '{", "FROM '", "glob")) and "tables/samples" not in attack
]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    base = tmp_path_factory.mktemp("attacked")
    out, run = base / "out", base / "run"
    out.mkdir()
    (out / "secret.csv").write_text("secret\n1\n")
    write_small(str(run))
    os.symlink(out / "secret.csv", run / "link.csv")
    with kept_open(str(run)):
        yield {"run": str(run), "out": str(out), "name": "out"}


def everything(place):
    tops = [Path(place["run"]), Path(place["out"])]
    return {str(path): path.read_bytes() for top in tops for path in sorted(top.rglob("*")) if path.is_file()}


@pytest.mark.thorough
@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_stays_in_the_run(attacked, attack, monkeypatch):
    monkeypatch.chdir(attacked["out"])
    before = everything(attacked)
    with pytest.raises(RecipeError):
        run_query(attacked["run"], attack.format(**attacked))
    assert everything(attacked) == before


@pytest.mark.thorough
@pytest.mark.parametrize("attack", OUTSIDE)
def test_the_connection_itself_is_closed_in(attacked, attack, monkeypatch):
    """The second barrier, without the first: a connection that reads and writes no other file."""
    monkeypatch.chdir(attacked["out"])
    before = everything(attacked)
    with pytest.raises(Exception, match=r"disabled by configuration|Parser Error|does not exist|Cannot"):
        OPENED[attacked["run"]].execute(attack.format(**attacked)).fetchall()
    assert everything(attacked) == before


def test_settings_are_locked(small):
    connection = open_run(small)
    for change in ("SET enable_external_access = true", "SET allowed_paths = ['/']", "RESET lock_configuration"):
        with pytest.raises(Exception, match=r"locked|Cannot"):
            connection.execute(change)
    assert list(answer(connection, "SELECT count(*) FROM kept").rows) == [(4,)]
    connection.close()


# ---- which folders are runs


def test_only_what_the_manifest_lists_exists(tmp_path):
    folder = write_small(str(tmp_path))
    stray = folder.read_parquet("tables/samples/00000.parquet")
    folder.write_parquet("tables/samples/00009.parquet", stray)
    assert ask(str(tmp_path), "SELECT count(*) FROM samples") == [(12,)]


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    folder = write_small(str(tmp_path))
    folder.delete("_SUCCESS")
    with pytest.raises(RunError, match=r"no _SUCCESS.*run its recipe again"):
        run_query(str(tmp_path), "funnel")


@pytest.mark.parametrize("view", ["kept", "dropped", "survivors", "verdicts"])
def test_views_of_decisions_have_scores(small, view):
    """Each column once, as the join with `scores` has them."""
    found = run_query(small, f"FROM {view}")
    assert len(set(found.names)) == len(found.names) == len({name.removesuffix("_1") for name in found.names})
    assert {"caption", "clip_score", "min_side", "kept", "rule", "draw"} < set(found.names)
    joined = "SELECT d.rule, c.clip_score FROM {} JOIN decisions d USING (unit, row) JOIN scores c USING (unit, row) ORDER BY unit, row"
    direct = f"SELECT rule, clip_score FROM {view} ORDER BY unit, row"
    assert ask(small, direct) == ask(small, joined.format(view))
    assert ask(small, f"SELECT avg(clip_score) FROM {view}")[0][0] > 0


def test_a_damaged_run_points_to_verify(tmp_path):
    folder = write_small(str(tmp_path))
    folder.delete("tables/samples/00001.parquet")
    with pytest.raises(RunError, match="curate verify"):
        run_query(str(tmp_path), "funnel")


def test_what_is_no_run(tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        run_query(str(tmp_path / "nowhere"), "funnel")
    with pytest.raises(RecipeError, match="not a run folder"):
        run_query(str(tmp_path), "funnel")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"did you mean .*/run[?] accepted"):
        run_query(str(tmp_path), "funnel")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="no such folder"):
        run_query(str(tmp_path / "file"), "funnel")


def test_a_table_that_is_a_link_out_of_the_run_is_refused(tmp_path):
    folder = write_small(str(tmp_path / "run"))
    (tmp_path / "run/tables/samples/00001.parquet").rename(tmp_path / "elsewhere.parquet")
    os.symlink(tmp_path / "elsewhere.parquet", tmp_path / "run/tables/samples/00001.parquet")
    with pytest.raises(RunError, match="link out of the run"):
        run_query(folder.url, "funnel")


def test_a_run_behind_a_link_and_with_odd_letters(tmp_path):
    write_small(str(tmp_path / "it's [a] rün"))
    os.symlink(tmp_path / "it's [a] rün", tmp_path / "link")
    assert ask(str(tmp_path / "link"), "SELECT count(*) FROM kept") == [(4,)]
    assert ask(str(tmp_path / "it's [a] rün"), "SELECT count(*) FROM kept") == [(4,)]


@pytest.mark.thorough
def test_a_remote_run_answers_alike(small):
    folder = write_small("memory://remote-run")
    try:
        with kept_open(folder.url):
            for query in named_queries():
                if query.name not in ("shards", "files"):  # digests and sizes of stats.duckdb and run.json
                    assert ask(folder.url, query.name, **NEEDED.get(query.name, {})) == ask(
                        small, query.name, **NEEDED.get(query.name, {})
                    )
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


EXACT = {
    f"({2**127 - 1})::HUGEINT": str(2**127 - 1),
    f"(-{2**127})::HUGEINT": str(-(2**127)),
    f"({2**128 - 1})::UHUGEINT": str(2**128 - 1),
    f"({2**64 - 1})::UBIGINT": str(2**64 - 1),
    "12345678901234567890.12345678901234::DECIMAL(38, 14)": "12345678901234567890.12345678901234",
    "0.1::DOUBLE": "0.1",
    "1e300::DOUBLE": "1e+300",
    "['nan'::FLOAT, 'inf', '-inf', NULL]": "[null, null, null, null]",
    f"{{'a': [{{'b': ({2**64 - 1})::UBIGINT}}], 'c': 1.10::DECIMAL(9, 2)}}": f'{{"a": [{{"b": {2**64 - 1}}}], "c": 1.10}}',
    f"MAP {{({2**64 - 1})::UBIGINT: [true]}}": f'{{"{2**64 - 1}": [true]}}',
    "chr(27) || chr(0) || chr(10) || chr(127) || chr(8238) || '\"\\'": r'"\u001b\u0000\n\u007f\u202e\"\\"',
    "{'k': [chr(27)]}": r'{"k": ["\u001b"]}',
    "TIMESTAMPTZ '2020-01-01 00:00:00+02'": '"2019-12-31 22:00:00+00:00"',
    "'00000000-0000-0000-0000-000000000001'::UUID": '"00000000-0000-0000-0000-000000000001"',
}


@pytest.mark.parametrize("expression", EXACT)
def test_json_is_exact(small, expression):
    text = shown(run_query(small, f"SELECT {expression} AS v"), "json")
    assert text == f'[\n{{"v": {EXACT[expression]}}}]\n'
    json.loads(text, parse_constant=pytest.fail)


def test_csv_is_read_back(small):
    result = run_query(small, "SELECT uid, caption, clip_score, kept, NULL AS none FROM verdicts ORDER BY unit, row")
    text = shown(result, "csv")
    assert "\r" not in text and text.count("\n") == len(result.rows) + 1
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == list(result.names)
    assert rows[1] == [uid("a1"), "a red cat", "0.5", "true", ""]
    assert [row[1] for row in rows[1:]] == [row[1] for row in result.rows]


def test_large_numbers_in_a_table_have_no_exponent(small):
    text = shown(run_query(small, "SELECT 3217158.2::DOUBLE AS a, 0.123456789::DOUBLE AS b"), "table")
    assert text.splitlines()[2].split() == ["3217158.2", "0.123456789"]


def test_csv_tells_null_from_an_empty_text(small, tmp_path):
    query = (
        "SELECT * FROM (VALUES (NULL, '', 'a,b'), ('', NULL, '\"'), (NULL, NULL, NULL), (' x', 'y\n', '')) v(a, b, c)"
    )
    result = run_query(small, query)
    (tmp_path / "x.csv").write_bytes(shown(result, "csv").encode())
    with duckdb.connect() as connection:
        read = "FROM read_csv(?, header = true, all_varchar = true, nullstr = '', allow_quoted_nulls = false)"
        assert connection.execute(read, [str(tmp_path / "x.csv")]).fetchall() == result.rows
    assert shown(run_query(small, "SELECT unnest(['a', NULL, '']) AS v"), "csv") == 'v\na\n""\n""\n'


def test_rows_are_fetched_as_they_are_read(small):
    """A result that fits no memory is read from its beginning, and left when its reader has enough."""
    with asking(small, "SELECT range AS i, repeat('x', 1000) AS text FROM range(1_000_000_000)") as result:
        rows = iter(result.rows)
        assert [next(rows)[0] for _ in range(10_000)] == list(range(10_000))


def test_what_goes_wrong_late_is_told_too(small):
    """Before the first row or after many, as DuckDB's threads have it."""
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
    assert not (steering - {"\n"}) & set(shown(Result(("a", text), [("x", text), (text, [text])]), "table"))
    assert not (steering - {"\n"}) & set(shown(Result(("a", text), [("x", text), (text, [text])]), "json"))


def test_csv_is_escaped_on_a_terminal(small):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal(newline="")
    result = run_query(small, "SELECT caption FROM kept WHERE caption LIKE 'caption%'")
    write_result(result, "csv", terminal)
    assert "\x1b" not in terminal.getvalue() and "\\x1b[31m" in terminal.getvalue()
    assert EVIL in shown(result, "csv")


def test_table_is_aligned():
    rows = [("日本", 5, 0.5), ("a" * 99, 12345, None)]
    lines = shown(Result(("text", "count", "share"), rows), "table").splitlines()
    assert lines[0] == "text" + " " * 78 + "count  share"
    assert lines[2] == "日本" + " " * 82 + "5    0.5"
    assert lines[3] == "a" * 79 + "…" + "  12345   NULL"
    assert lines[4:] == ["(2 rows)", "long values are cut: --format csv has them whole"]
    assert "cut" not in shown(Result(("text",), [("a" * 80,)]), "table")


def test_a_wide_table_is_turned():
    lines = shown(Result(tuple(f"column{i}" for i in range(30)), [tuple(range(30))]), "table").splitlines()
    assert lines[0] == "── row 1 of 1" and lines[1] == "column0   0" and len(lines) == 32


# ---- the command


def test_the_command_lists_queries(small, capsys):
    sql(small)
    assert "top_entries" in capsys.readouterr().out
    sql(small, format=Format.json)
    listed = json.loads(capsys.readouterr().out)
    assert {row["query"] for row in listed} == {query.name for query in named_queries()}
    assert {row["query"]: row["parameters"] for row in listed}["explain"] == "uid=…"


def test_the_command_says_why_there_are_no_licences(small, capsys):
    sql(small, "licences", format=Format.json)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert printed.err.startswith("the run's tables have no column with licenses. ")
    assert printed.err.count("\n") == 1 and "derive: {stated: licence_url}" in printed.err
    sql(small, "top_entries", format=Format.json)
    assert capsys.readouterr().err == ""


def test_the_command_answers(small, capsys):
    sql(small, "top_entries", ["limit=1"], Format.json)
    assert json.loads(capsys.readouterr().out)[0]["entry"] == "cat"
    sql(small, "SELECT $a AS a", ["a=x=y"], Format.csv)
    assert capsys.readouterr().out.splitlines() == ["a", "x=y"]
    with pytest.raises(RecipeError, match="NAME=VALUE"):
        sql(small, "funnel", ["limit"])
    with pytest.raises(RecipeError, match="needs a query"):
        sql(small, None, ["limit=3"])


@pytest.mark.parametrize(("name", "sibling"), [("run[1]", "run1"), ("run*", "runs"), ("run?", "runs")])
def test_a_folder_whose_name_is_a_pattern(tmp_path, name, sibling):
    write_small(str(tmp_path / name))
    write_bare(str(tmp_path / sibling))
    assert ask(str(tmp_path / name), "SELECT count(*), any_value(published.key) IS NULL FROM samples, published") == [
        (48, False)
    ]
    with pytest.raises(RecipeError):
        ask(str(tmp_path / name), f"FROM '{tmp_path}/{sibling}/tables/samples/00000.parquet'")


def test_parentheses_without_end_are_refused(small):
    with pytest.raises(RecipeError, match="parentheses are nested too deeply"):
        ask(small, "SELECT " + "(" * 100_000)


@pytest.mark.parametrize("name", ["stats.duckdb", "manifest.parquet", "tables/samples/00000.parquet"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(small, tmp_path, name):
    shutil.copytree(small, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(OSError, match=rf"{name}: is not a regular file"):
        open_run(str(tmp_path / "run"))
