"""Named queries against answers worked out by hand, output formats, and SQL that tries to leave the run."""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.cli.sql import Format, sql
from curate.errors import RecipeError, RunError
from curate.publish.output import Result, escape, write_result
from curate.publish.query import NamedQuery, execute, named_queries, open_run, run_query
from tests.publish.runs import EVIL, uid, write_bare, write_small

NEEDED = {"explain": {"uid": uid("a1")}, "cooccurrence": {"class": "source", "context": "language"}}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("small"))
    write_small(url)
    return url


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("bare"))
    write_bare(url)
    return url


def ask(url: str, query: str, **params: object) -> list[tuple[Any, ...]]:
    return run_query(url, query, params).rows


def shown(result: Result, form: Literal["csv", "json", "table"]) -> str:
    file = io.StringIO(newline="")
    write_result(result, form, file)
    return file.getvalue()


# ---- named queries


def test_funnel(small: str) -> None:
    rows = ask(small, "funnel")
    assert [row[:4] for row in rows] == [
        ("pool", 12, 0, 12),
        ("failed", 12, 1, 11),
        ("words", 11, 1, 10),
        ("side", 10, 1, 9),
        ("aligned", 9, 1, 8),
        ("unmatched", 8, 1, 7),
        ("duplicate", 7, 2, 5),
        ("balance", 5, 1, 4),
        ("kept", 4, 0, 4),
    ]
    assert sum(row[2] for row in rows) + rows[-1][3] == rows[0][1]
    assert rows[6][4:] == pytest.approx((2 / 12, 5 / 12))
    assert sum(row[4] for row in rows) + rows[-1][5] == pytest.approx(1)


def test_failures(small: str) -> None:
    assert [row[:4] for row in ask(small, "failures")] == [
        ("file", "not_a_tar", 1, None),
        ("sample", "truncated_image", 1, pytest.approx(1 / 12)),
    ]
    assert [row[5:] for row in ask(small, "failures")] == [
        ("bad.tar", "begins with <html>"),
        ("photos.tar a3", "ends at byte 100"),
    ]


def test_entries(small: str) -> None:
    assert ask(small, "entries") == [
        (0, "cat", "words", "en", 7, 4, 0.5, 2.5, 3),
        (1, "red", "words", "en", 2, 1, 1.0, 1.0, 1),
        (2, "photo", "titles", "en", 1, 1, 1.0, 1.0, 1),
        (4, "score", "words", "en", 1, 0, 1.0, 0.0, 0),
    ]
    assert [row[1] for row in ask(small, "entries", like="%o%", min_pool=0, limit=1)] == ["photo"]
    assert len(ask(small, "entries", min_pool="0", limit="null")) == 5


def test_top_and_tail_entries(small: str) -> None:
    assert ask(small, "top_entries", limit=2) == [
        ("cat", 7, 4, 0.5, 2.5, 3, 0.75),
        ("red", 2, 1, 1.0, 1.0, 1, 1.0),
    ]
    assert ask(small, "tail-entries", limit=2) == [("score", 1, 0, 0, True), ("photo", 1, 1, 1, False)]


def test_sources(small: str) -> None:
    assert ask(small, "sources") == [
        ("photos", 6, 1, 3, 2, pytest.approx(1 / 3), 0.5),
        ("web", 6, 0, 4, 2, pytest.approx(1 / 3), 0.5),
        ("empty", 0, 0, 0, 0, None, 0.0),
    ]


def test_source_funnel(small: str) -> None:
    rows = ask(small, "source_funnel")
    assert [row for row in rows if row[2]] == [
        (source, rule, 1, pytest.approx(1 / 6))
        for source, rule in [
            ("photos", "failed"), ("photos", "words"), ("photos", "side"), ("photos", "duplicate"),
            ("web", "aligned"), ("web", "unmatched"), ("web", "duplicate"), ("web", "balance"),
        ]
    ]  # fmt: skip
    assert len(rows) == 3 * 7


def test_duplicates(small: str) -> None:
    assert ask(small, "duplicates") == [
        (uid("a1"), True, 2, [uid("a5"), uid("a1")], ["photos.tar a5", "web.tar b5"], "a red cat", "http://x/a1")
    ]


def test_explain(small: str) -> None:
    result = run_query(small, "explain", {"uid": uid("a1").upper()})
    first, second = (dict(zip(result.names, row, strict=True)) for row in result.rows)
    assert (first["unit"], first["row"], first["kept"], first["entries"]) == (0, 0, True, ["cat", "red"])
    assert (second["unit"], second["row"], second["rule"], second["entries"]) == (1, 4, "duplicate", [])
    assert first["clip_score"] == 0.5 and first["phash"] == 2**64 - 1
    assert ask(small, "explain", uid=uid("ff")) == []


def test_estimate(small: str, bare: str) -> None:
    # π of the kept rows: 1, 0.5, 1, 0.5. Estimate 1 + 2 + 1 + 2; variance 2 · (1 - 0.5) / 0.25.
    assert ask(small, "estimate") == [(4, 6.0, 2.0, pytest.approx(2.08), pytest.approx(9.92), 5, 0.5)]
    assert ask(bare, "estimate") == [(2, 2.0, 0.0, 2.0, 2.0, 2, None)]


def test_languages(small: str) -> None:
    assert ask(small, "languages") == [
        ("en", 11, 3, pytest.approx(3 / 11), pytest.approx(11 / 12), 0.75),
        ("fr", 1, 1, 1.0, pytest.approx(1 / 12), 0.25),
    ]


def test_sizes(small: str) -> None:
    assert ask(small, "sizes") == [
        (0, 128, 1, 0, 1, 0),
        (256, 384, 1, 1, 0, 0),
        (384, 512, 0, 0, 10, 4),
        (640, 768, 9, 3, 0, 0),
    ]
    assert ask(small, "sizes", step=1000) == [(0, 1000, 11, 4, 11, 4)]


def test_formats(small: str) -> None:
    assert ask(small, "formats") == [("jpeg", 10, 4, 1000.0, 6000), ("png", 1, 0, 100.0, 0), (None, 1, 0, 1000.0, 0)]


def test_caption_lengths(small: str) -> None:
    assert ask(small, "caption_lengths") == [
        (0, 5, 10, 3, 0.3, "a red cat"),
        (5, 10, 2, 1, 0.5, "a cat again and now"),
    ]


def test_matches_per_text(small: str) -> None:
    assert ask(small, "matches_per_text") == [(0, 3, 0, 0), (1, 7, 4, 3), (2, 1, 1, 1)]


def test_coverage(small: str) -> None:
    assert ask(small, "coverage") == [(5, 4, 3, 3, 0, 1, 2, pytest.approx(2 / 6), pytest.approx(2 / 5))]


def test_dropped(small: str) -> None:
    assert [row[:2] for row in ask(small, "dropped", rule="duplicate")] == [
        ("duplicate", uid("a1")),
        ("duplicate", uid("a5")),
    ]
    assert len(ask(small, "dropped")) == 8 and len(ask(small, "dropped", limit=3)) == 3


def test_shards(small: str, bare: str) -> None:
    assert [row[:3] for row in ask(small, "shards")] == [("shards/00000.tar", 3, 3), ("shards/00001.tar", 1, 3)]
    assert [row[:2] for row in ask(bare, "shards")] == [("shards/00000.parquet", 2)]


def test_cooccurrence(small: str) -> None:
    """By source and language: photos 6 English, web 5 English and 1 French; shares are of the source."""
    rows = ask(
        small, "cooccurrence", **{"class": "source", "context": "language", "min_class": 1, "counter_share": 0.2}
    )
    assert [row[:4] for row in rows] == [("photos", "en", 6, 2), ("web", "en", 5, 1), ("web", "fr", 1, 1)]
    assert [row[4] for row in rows] == [1, 5 / 6, 1 / 6]
    assert [row[5] for row in rows] == [1, 1 / 2, 1 / 2]
    assert [round(row[6], 6) for row in rows] == [round(12 / 11, 6), round(5 / 6 / (11 / 12), 6), 2]
    assert [row[7] for row in rows] == ["common", "common", "counter"]


def test_drift(small: str) -> None:
    """None without embeddings; tests/publish/test_drifts.py has some."""
    assert ask(small, "drift") == []


@pytest.mark.parametrize("query", named_queries(), ids=lambda query: query.name)
def test_each_query_runs_on_every_run_and_says_what_it_gives(query: NamedQuery, small: str, bare: str) -> None:
    assert query.summary.endswith(".") and len(query.summary) <= 80 and query.columns
    for url in (small, bare):
        result = run_query(url, query.name, NEEDED.get(query.name))
        if "*" in query.columns:
            assert set(query.columns) - {"*"} <= set(result.names)
        else:
            assert tuple(query.columns) == result.names
        assert json.loads(shown(result, "json")) is not None
        assert all(f"${param.name}" in query.sql for param in query.params)


def test_every_answer_above_is_tested() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    elsewhere = {"caption_work", "caption_gates", "captions"}  # tests/captions/test_unit.py
    names = {query.name for query in named_queries()} - {"top_entries", "tail_entries"} - elsewhere
    assert names <= tested


# ---- names and parameters


@pytest.mark.parametrize(
    ("text", "params", "message"),
    [
        ("funel", {}, "did you mean 'funnel'"),
        ("samples", {}, "FROM samples"),
        ("top_entries", {"limt": 3}, "did you mean 'limit'.*parameters of top_entries: limit"),
        ("funnel", {"limit": 3}, "funnel has no parameters"),
        ("top_entries", {"limit": "many"}, "needs a number"),
        ("explain", {}, "uid=… is missing"),
        ("SELECT $a", {}, "a=… is missing"),
        ("SELECT 1", {"a": 1}, "no parameters"),
        ("SELECT 1; SELECT 2", {}, "2 statements"),
        ("  ;", {}, "0 statements"),
        ("SELEC 1", {}, "syntax error"),
        ("SELECT wrds FROM samples", {}, "words"),
        ("SELECT caption::INT FROM samples", {}, "Could not convert"),
        ("FROM nowhere", {}, "nowhere"),
    ],
)
def test_a_wrong_question_says_what_is_accepted(small: str, text: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        run_query(small, text, params)


def test_parameters_of_sql(small: str) -> None:
    assert ask(small, "SELECT count(*) FROM samples WHERE words > $least", least="3") == [(6,)]
    assert ask(small, "SELECT $a, $b, $c, $d", a="1.5", b="007", c="'12'", d="-3") == [(1.5, "007", "12", -3)]
    assert ask(small, "SELECT rule FROM verdicts WHERE uid = $uid", uid=uid("12").replace("12", "a2")) == [("words",)]


@pytest.mark.parametrize(
    "text",
    [
        "EXPLAIN SELECT count(*) FROM kept", "explain analyze SELECT 1", "EXPLAIN (FORMAT json) FROM kept",
        "DESCRIBE samples", "SHOW TABLES", "SUMMARIZE scores", "VALUES (1)", "FROM range(3)", "TABLE kept",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT * FROM n",
        "SELECT * FROM histogram(samples, words)", "PIVOT kept ON language IN ('en', 'fr') USING count(*)",
        "SELECT 1 UNION SELECT 2;", "SELECT duckdb_tables FROM duckdb_tables()", "-- why\nSELECT 1 -- so",
    ],
)  # fmt: skip
def test_what_only_reads_is_accepted(small: str, text: str) -> None:
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
]


# Files that the run reads itself are protected by the first barrier alone.
OUTSIDE = [
    attack
    for attack in ATTACKS
    if any(way in attack for way in ("FROM read", "TO '{", "FROM '", "glob")) and "tables/samples" not in attack
]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    base = tmp_path_factory.mktemp("attacked")
    out, run = base / "out", base / "run"
    out.mkdir()
    (out / "secret.csv").write_text("secret\n1\n")
    write_small(str(run))
    os.symlink(out / "secret.csv", run / "link.csv")
    return {"run": str(run), "out": str(out), "name": "out"}


def everything(place: dict[str, str]) -> dict[str, bytes]:
    tops = [Path(place["run"]), Path(place["out"])]
    return {str(path): path.read_bytes() for top in tops for path in sorted(top.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_stays_in_the_run(attacked: dict[str, str], attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(attacked["out"])
    before = everything(attacked)
    with pytest.raises(RecipeError):
        run_query(attacked["run"], attack.format(**attacked))
    assert everything(attacked) == before


@pytest.mark.parametrize("attack", OUTSIDE)
def test_the_connection_itself_is_closed_in(
    attacked: dict[str, str], attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second barrier, without the first: a connection that reads and writes no other file."""
    monkeypatch.chdir(attacked["out"])
    before = everything(attacked)
    connection = open_run(attacked["run"])
    try:
        with pytest.raises(Exception, match=r"disabled by configuration|Parser Error|does not exist|Cannot"):
            connection.execute(attack.format(**attacked)).fetchall()
    finally:
        connection.close()
    assert everything(attacked) == before


def test_settings_are_locked(small: str) -> None:
    connection = open_run(small)
    for change in ("SET enable_external_access = true", "SET allowed_paths = ['/']", "RESET lock_configuration"):
        with pytest.raises(Exception, match=r"locked|Cannot"):
            connection.execute(change)
    assert execute(connection, "SELECT count(*) FROM kept").rows == [(4,)]
    connection.close()


# ---- which folders are runs


def test_only_what_the_manifest_lists_exists(tmp_path: Path) -> None:
    folder = write_small(str(tmp_path))
    stray = folder.read_parquet("tables/samples/00000.parquet")
    folder.write_parquet("tables/samples/00009.parquet", stray)
    assert ask(str(tmp_path), "SELECT count(*) FROM samples") == [(12,)]


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    folder = write_small(str(tmp_path))
    folder.delete("_SUCCESS")
    with pytest.raises(RunError, match=r"no _SUCCESS.*run its recipe again"):
        run_query(str(tmp_path), "funnel")


def test_a_damaged_run_points_to_verify(tmp_path: Path) -> None:
    folder = write_small(str(tmp_path))
    folder.delete("tables/samples/00001.parquet")
    with pytest.raises(RunError, match="curate verify"):
        run_query(str(tmp_path), "funnel")


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such folder"):
        run_query(str(tmp_path / "nowhere"), "funnel")
    with pytest.raises(RecipeError, match="not a run folder"):
        run_query(str(tmp_path), "funnel")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="no such folder"):
        run_query(str(tmp_path / "file"), "funnel")


def test_a_table_that_is_a_link_out_of_the_run_is_refused(tmp_path: Path) -> None:
    folder = write_small(str(tmp_path / "run"))
    (tmp_path / "run/tables/samples/00001.parquet").rename(tmp_path / "elsewhere.parquet")
    os.symlink(tmp_path / "elsewhere.parquet", tmp_path / "run/tables/samples/00001.parquet")
    with pytest.raises(RunError, match="link out of the run"):
        run_query(folder.url, "funnel")


def test_a_run_behind_a_link_and_with_odd_letters(tmp_path: Path) -> None:
    write_small(str(tmp_path / "it's [a] rün"))
    os.symlink(tmp_path / "it's [a] rün", tmp_path / "link")
    assert ask(str(tmp_path / "link"), "SELECT count(*) FROM kept") == [(4,)]
    assert ask(str(tmp_path / "it's [a] rün"), "SELECT count(*) FROM kept") == [(4,)]


def test_a_remote_run_answers_alike(small: str) -> None:
    folder = write_small("memory://remote-run")
    try:
        for query in named_queries():
            if query.name != "shards":
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


def test_json_is_one_array_of_objects(small: str) -> None:
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
def test_json_is_exact(small: str, expression: str) -> None:
    text = shown(run_query(small, f"SELECT {expression} AS v"), "json")
    assert text == f'[\n{{"v": {EXACT[expression]}}}]\n'
    json.loads(text, parse_constant=pytest.fail)


def test_csv_is_read_back(small: str) -> None:
    result = run_query(
        small,
        "SELECT uid, caption, clip_score, kept, NULL AS none FROM verdicts "
        "JOIN scores USING (unit, row, uid) ORDER BY unit, row",
    )
    text = shown(result, "csv")
    assert text.count("\r\n") == len(result.rows) + 1
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == list(result.names)
    assert rows[1] == [uid("a1"), "a red cat", "0.5", "true", ""]
    assert [row[1] for row in rows[1:]] == [row[1] for row in result.rows]


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_survives_csv_and_json(rows: list[tuple[str, str]]) -> None:
    result = Result(("a", "b\n\x1b,"), rows)
    assert [tuple(row.values()) for row in json.loads(shown(result, "json"))] == rows
    assert [tuple(row) for row in csv.reader(io.StringIO(shown(result, "csv"), newline=""))] == [result.names, *rows]


@given(st.text())
def test_no_text_steers_a_terminal(text: str) -> None:
    steering = {chr(c) for c in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    assert not steering & set(escape(text))
    assert not (steering - {"\n"}) & set(shown(Result(("a", text), [("x", text), (text, [text])]), "table"))
    assert not (steering - {"\n"}) & set(shown(Result(("a", text), [("x", text), (text, [text])]), "json"))


def test_csv_is_escaped_on_a_terminal(small: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal(newline="")
    result = run_query(small, "SELECT caption FROM kept WHERE caption LIKE 'caption%'")
    write_result(result, "csv", terminal)
    assert "\x1b" not in terminal.getvalue() and "\\x1b[31m" in terminal.getvalue()
    assert EVIL in shown(result, "csv")


def test_table_is_aligned() -> None:
    rows = [("日本", 5, 0.5), ("a" * 99, 12345, None)]
    lines = shown(Result(("text", "count", "share"), rows), "table").splitlines()
    assert lines[0] == "text" + " " * 78 + "count  share"
    assert lines[2] == "日本" + " " * 82 + "5    0.5"
    assert lines[3] == "a" * 79 + "…" + "  12345   NULL"
    assert lines[4] == "(2 rows)"


def test_a_wide_table_is_turned() -> None:
    lines = shown(Result(tuple(f"column{i}" for i in range(30)), [tuple(range(30))]), "table").splitlines()
    assert lines[0] == "── row 1 of 1" and lines[1] == "column0   0" and len(lines) == 32


# ---- the command


def test_the_command_lists_queries(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    sql(small)
    assert "top_entries" in capsys.readouterr().out
    sql(small, format=Format.json)
    listed = json.loads(capsys.readouterr().out)
    assert {row["query"] for row in listed} == {query.name for query in named_queries()}
    assert {row["query"]: row["parameters"] for row in listed}["explain"] == "uid=…"


def test_the_command_answers(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    sql(small, "top_entries", ["limit=1"], Format.json)
    assert json.loads(capsys.readouterr().out)[0]["entry"] == "cat"
    sql(small, "SELECT $a AS a", ["a=x=y"], Format.csv)
    assert capsys.readouterr().out.splitlines() == ["a", "x=y"]
    with pytest.raises(RecipeError, match="name=value"):
        sql(small, "funnel", ["limit"])
    with pytest.raises(RecipeError, match="needs a query"):
        sql(small, None, ["limit=3"])
