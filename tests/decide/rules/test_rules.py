"""Rules: what is refused before a run, what a row's NULL or error does, and that no file can be reached."""

import json
import math
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.decide.rules.rules import Rule, _local, check_rules, connect, first_failed, named_columns, rule_values
from curate.decide.segments import Segment, cut_segments
from curate.recipe.deciding import Top
from curate.recipe.recipe import parse_recipe

COLUMNS = pa.schema(
    [
        ("caption", pa.string()),
        ("url", pa.large_string()),
        ("words", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("clip_score", pa.float32()),
        ("safe", pa.bool_()),
        ("taken", pa.timestamp("us")),
        ("tags", pa.list_(pa.string())),
        ("price", pa.decimal128(5, 2)),
        ("Odd Name", pa.float64()),
    ]
)


def check(*sqls: str | Top) -> list[Rule]:
    return check_rules({f"r{i}": sql for i, sql in enumerate(sqls)}, COLUMNS)


def refusal(sql: str | Top, columns: pa.Schema = COLUMNS) -> str:
    with pytest.raises(RecipeError) as caught:
        check_rules({"mine": sql}, columns)
    return str(caught.value)


def table(**columns: list[Any]) -> pa.Table:
    """A table of the columns above, nulls where none are given."""
    rows = len(next(iter(columns.values())))
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * rows), f.type) for f in COLUMNS})


def failed(sqls: list[str], rows: pa.Table) -> list[int]:
    found = first_failed(tuple(check(*sqls)), rows)
    assert found.dtype == np.int16
    return found.tolist()


# ---- what is accepted


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("words > 2", ["words"]),
        ('WORDS > 2 and "words" < 9', ["words"]),
        ("least(width, height) >= 200", ["width", "height"]),
        ("greatest(width, height) / least(width, height) <= 3.0", ["width", "height"]),
        ("caption ilike '%cat%' or 'dog' in caption", ["caption"]),
        ("not regexp_matches(caption, '(?i)^img_\\d')", ["caption"]),
        ("words > 2 -- a comment", ["words"]),
        ("/* a comment */ words > 2 /* ; select */", ["words"]),
        ("words\n  > 2\n", ["words"]),
        ("words between 2 and 5", ["words"]),
        ("words in (1, 2, 3)", ["words"]),
        ("case when words > 2 then clip_score > 0.3 end", ["words", "clip_score"]),
        ("clip_score is not null", ["clip_score"]),
        ("words::double / 2 > 1", ["words"]),
        ("try_cast(caption as int) > 2", ["caption"]),
        ("phash = 18446744073709551615", ["phash"]),
        ("safe", ["safe"]),
        ("list_contains(tags, 'a')", ["tags"]),
        ("price > 1.5", ["price"]),
        ("taken > timestamp '2020-01-01'", ["taken"]),
        ("year(taken) = 2020", ["taken"]),
        ("age(taken, timestamp '2020-01-01') > interval 1 year", ["taken"]),
        ('"Odd Name" > 1', ["Odd Name"]),
        ("len([x for x in string_split(caption, ' ') if x = 'a']) > 0", ["caption"]),
        ("list_any_value(list_transform(tags, lambda x: x = caption))", ["tags", "caption"]),
        ("words > 2 and len(list_filter([1], lambda words: words > 0)) > 0", ["words"]),
        ("split_part(url, '/', 3) = 'x.org'", ["url"]),
        ("list_sum([words, width]) > 2", ["words", "width"]),
        ("true", []),
        ("NULL::BOOLEAN", []),
        # errors on some values are the rows' own affair
        ("ln(words - 1) > 0.1", ["words"]),
        ("sqrt(words - 2) > 1", ["words"]),
        ("strptime(caption, '%Y') is not null", ["caption"]),
        ("json_extract(caption, '$.a') = '1'", ["caption"]),
        ("words + 2147483647 > 2", ["words"]),
        ("caption::int > 2", ["caption"]),
    ],
)
def test_scalar_expressions_are_accepted(sql: str, columns: list[str]) -> None:
    [rule] = check(sql)
    assert sorted(rule.columns) == sorted(columns)
    everything = table(caption=["a", None, "{", "5"], words=[1, None, 0, 2**31 - 1])
    assert set(failed([sql], everything)) <= {0, -1}  # and it runs, whatever the rows hold


# ---- what is refused


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        # not one expression
        ("words >", ["not a SQL expression"]),
        ("", ["true or false"]),
        ("(words > 2", ["not a SQL expression"]),
        ("words > 2;", ["not a SQL expression"]),
        ("words > 2; select true", ["not a SQL expression"]),
        ("true); drop table batch; select (true", ["not a SQL expression"]),
        ("true), (false", ["not one SQL expression"]),
        ("true) from (select 1", ["not one SQL expression"]),
        ("true) union (select true", ["not one SQL expression"]),
        ("true) where (true", ["not one SQL expression"]),
        ("true) group by (1", ["not one SQL expression"]),
        ("true) having (true", ["not one SQL expression"]),
        ("true) limit (1", ["not one SQL expression"]),
        ("true) order by (1", ["not one SQL expression"]),
        ("words > 2 as x", ["not a SQL expression"]),
        ("select true", ["subquery"]),
        # not of one row
        ("words in (select 1)", ["subquery"]),
        ("words = (select 2)", ["subquery"]),
        ("exists (select 1)", ["subquery"]),
        ("words > all (select 1)", ["subquery"]),
        ("list_transform(tags, lambda x: (select true))[1]", ["subquery"]),
        ("sum(words) > 2", ["sum()", "aggregate", "top"]),
        ("count(*) > 2", ["aggregate"]),
        ("quantile(words) > 0.8", ["a rule looks at one row, and quantile() at many", "derive: {place: quantile(COLUMN)}"]),
        ("zscore(words) > 0", ["a rule looks at one row, and zscore() at many", "use place here"]),
        ("words > avg(words)", ["avg()", "aggregate"]),
        ("approx_quantile(words, 0.5) > 1", ["aggregate"]),
        ("geomean(clip_score) > 1", ["aggregate"]),
        ("wavg(clip_score, words) > 1", ["aggregate"]),
        ("row_number() over () > 1", ["window"]),
        ("lag(words) over (order by width) > 1", ["window"]),
        ("sum(words) over () > 1", ["window"]),
        ("unnest([true, false])", ["unnest"]),
        ("generate_subscripts([1, 2], 1) > 1", ["UNNEST"]),
        ("* > 2", ["star"]),
        ("*", ["star"]),
        ("columns('w.*') > 2", ["star"]),
        ("#1 > 2", ["positional reference"]),
        ("default", ["default"]),
        ("rowid > 2", ["no column 'rowid'"]),
        ("grouping(words) = 0", ["GROUPING"]),
        # parameters
        ("words > ?", ["parameter"]),
        ("words > $1", ["parameter"]),
        ("words > $n", ["parameter"]),
        # not the same each time
        ("random() < 0.5", ["random()", "deterministic"]),
        ("list_transform([1], lambda x: random())[1] < 0.5", ["random()", "deterministic"]),
        ("uuid()::varchar > 'a'", ["uuid()", "deterministic"]),
        ("gen_random_uuid()::varchar > 'a'", ["deterministic"]),
        ("now() > timestamp '2020-01-01'", ["now()", "deterministic"]),
        ("today() > date '2020-01-01'", ["today()", "deterministic"]),
        ("get_current_timestamp() > timestamp '2020-01-01'", ["deterministic"]),
        ("transaction_timestamp() > timestamp '2020-01-01'", ["deterministic"]),
        ("current_localtimestamp() > timestamp '2020-01-01'", ["deterministic"]),
        ("current_date > date '2020-01-01'", ["current_date"]),
        ("current_timestamp > timestamp '2020-01-01'", ["current_timestamp"]),
        ("localtimestamp > timestamp '2020-01-01'", ["localtimestamp"]),
        ("age(taken) > interval 1 year", ["age()", "deterministic"]),
        ("ago(interval 1 day) > taken", ["ago()", "deterministic"]),
        ("pg_postmaster_start_time() > taken", ["deterministic"]),
        ("pg_conf_load_time() > taken", ["deterministic"]),
        ("nextval('s') > 1", ["nextval()", "deterministic"]),
        ("txid_current() > 1", ["deterministic"]),
        ("setseed(0.5) is null", ["deterministic"]),
        ("current_setting('threads') = '1'", ["deterministic"]),
        ("getvariable('x') = 1", ["deterministic"]),
        # not true or false, or not of the types at hand
        ("words", ["INTEGER", "true or false"]),
        ("caption", ["VARCHAR"]),
        ("1", ["INTEGER"]),
        ("NULL", ["NULL"]),
        ("{'a': words}", ["STRUCT"]),
        ("[words]", ["INTEGER[]"]),
        ("words > 'many'", ["many"]),
        ("clip_score > 'high'", ["high"]),
        ("safe = 'perhaps'", ["perhaps"]),
        ("taken > 'yesterday'", ["yesterday"]),
        ("least(caption, words) > 2", ["rules.mine"]),
        ("nosuch(words)", ["nosuch"]),
        ("upper(words, caption) = 'A'", ["upper"]),
        ("samples.words > 2", ["samples"]),
        ("words.x > 2", ["'x'"]),
    ],
)  # fmt: skip
def test_everything_else_is_refused(sql: str, parts: list[str]) -> None:
    message = refusal(sql)
    assert message.startswith(f"rules.mine: {sql!r}") or message.startswith("rules.mine: no column")
    assert not [part for part in parts if part not in message], message


@pytest.mark.parametrize(
    "sql", ["caption > 2", "words < 2 or caption > 2", "caption = words", "caption between 1 and 2"]
)
def test_text_is_not_taken_for_numbers(sql: str) -> None:
    assert "rules.mine" in refusal(sql)
    assert check(sql.replace("caption", "try_cast(caption as int)"))


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("wrods > 2", ["'wrods'", "did you mean 'words'?", "clip_score"]),
        ("clip_scores > 2", ["did you mean 'clip_score'?"]),
        ("zzzzz > 2", ["'zzzzz'", "columns: caption, url, words"]),
        ("language = 'en'", ["'language'", "measure: {language: {}}"]),
        ("language_score > 0.5", ["measure: {language: {}}"]),
        (Top(top=0.3, of="clip_scor"), ["'clip_scor'", "did you mean 'clip_score'?"]),
        (Top(top=0.3, of="caption"), ["numeric", "'caption'", "string"]),
        (Top(top=0.3, of="taken"), ["numeric", "'taken'"]),
    ],
)
def test_a_missing_column_is_named(sql: str | Top, parts: list[str]) -> None:
    message = refusal(sql)
    assert message.startswith("rules.mine: ")
    assert not [part for part in parts if part not in message], message


def test_phash_says_how_it_is_measured() -> None:
    assert "measure: {image: {phash: true}}" in refusal("phash = 1", pa.schema([("words", pa.int32())]))


def test_a_top_rule_reads_its_column_in_any_case() -> None:
    [rule] = check(Top(top=0.3, of="CLIP_SCORE"))
    assert rule.columns == ("clip_score",)


# ---- files

SECRET = "the secret of another file"
FILE_SQL = [
    "(select content from read_text('{0}')) is null",
    "read_text('{0}') is null",
    "read_blob('{0}') is null",
    "exists (from '{0}')",
    "exists (from read_csv('{0}'))",
    "exists (from read_json('{0}'))",
    "exists (from read_parquet('{0}'))",
    "exists (from glob('{1}/*'))",
    "exists (from sniff_csv('{0}'))",
    "exists (from parquet_metadata('{0}'))",
    "exists (from query('from ''{0}'''))",
    "exists (with x as (copy (select 1) to '{1}/new') select 1)",
    "true); copy (select 1) to '{1}/new'; select (true",
    "true); attach '{1}/new' as db; select (true",
    "true); install httpfs; select (true",
    "true); load '{0}'; select (true",
    "true); export database '{1}/new'; select (true",
    "true); set enable_external_access=true; select (true",
    "getenv('HOME') = '/'",
    "exists (from secret_table)",
]
STATEMENTS = [
    "SELECT content FROM read_text('{0}')",
    "SELECT content FROM read_blob('{0}')",
    "FROM '{0}'",
    "FROM read_csv('{0}')",
    "FROM read_json_auto('{0}')",
    "FROM read_parquet('{0}')",
    "FROM parquet_metadata('{0}')",
    "FROM sniff_csv('{0}')",
    "FROM glob('{1}/*')",
    "FROM query('FROM ''{0}''')",
    "COPY (SELECT 1) TO '{1}/new'",
    "WITH x AS (COPY (SELECT 1) TO '{1}/new') SELECT 1",
    "ATTACH '{1}/new' AS db",
    "EXPORT DATABASE '{1}/new'",
    "IMPORT DATABASE '{1}'",
    "INSTALL httpfs",
    "LOAD '{0}'",
    "SET enable_external_access = true",
    "SET allowed_paths = ['{0}']",
    "SET temp_directory = '{1}/new'",
    "SET log_query_path = '{1}/new'",
    "PRAGMA enable_profiling; PRAGMA profiling_output = '{1}/new'",
    "RESET lock_configuration",
    "CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b'); FROM 's3://a/b.parquet'",
    "FROM secret_table",
]


@pytest.fixture
def secret(tmp_path: Path) -> tuple[str, str]:
    """A file that no rule may read, and its folder, in which none may write."""
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return str(path), str(tmp_path)


@pytest.mark.parametrize("sql", FILE_SQL)
def test_no_rule_can_name_a_file(sql: str, secret: tuple[str, str]) -> None:
    secret_table = pa.table({"secret": [SECRET]})  # noqa: F841 (a variable that DuckDB must not find)
    message = refusal(sql.format(*secret))
    assert SECRET not in message
    assert [path.name for path in Path(secret[1]).iterdir()] == ["secret.txt"]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_the_connection_cannot_reach_files_either(sql: str, secret: tuple[str, str]) -> None:
    secret_table = pa.table({"secret": [SECRET]})  # noqa: F841
    with pytest.raises(duckdb.Error) as caught:
        connect().execute(sql.format(*secret)).fetchall()
    assert SECRET not in str(caught.value)
    assert [path.name for path in Path(secret[1]).iterdir()] == ["secret.txt"]
    assert failed(["words > 2"], table(words=[3])) == [-1]  # and it still works


# ---- what a row's values do


def test_null_fails() -> None:
    rows = table(words=[1, None, 5], clip_score=[None, 0.5, 0.5])
    assert failed(["words > 2"], rows) == [0, 0, -1]
    assert failed(["not (words > 2)"], rows) == [-1, 0, 0]
    assert failed(["clip_score > 0.3"], rows) == [0, -1, -1]
    assert failed(["words is null or words > 2"], rows) == [0, -1, -1]
    assert failed(["null::boolean"], rows) == [0, 0, 0]


@pytest.mark.parametrize(
    ("sql", "caption", "words", "expected"),
    [
        ("caption::int > 2", ["a", "5", "1", None, "", "3"], None, [0, -1, 0, 0, 0, -1]),
        ("caption::int > 2 or words = 1", ["a", "5", "a"], [1, 1, 2], [0, -1, 0]),
        ("words * words > 2", None, [2, 2**31 - 1, None, -5], [-1, 0, 0, -1]),
        ("strptime(caption, '%Y') is not null", ["2020", "x", "1999"], None, [-1, 0, -1]),
        ("json_extract(caption, '$.a') = '1'", ['{"a": 1}', "{", "[]"], None, [-1, 0, 0]),
        ("words % (words - 1) = 0", None, [1, 2, 3], [0, -1, 0]),
        ("chr(words) = 'A'", None, [65, -1, 2**31 - 1, 66], [-1, 0, 0, 0]),
    ],
)
def test_an_error_on_a_value_fails_its_row_only(
    sql: str, caption: list[Any] | None, words: list[Any] | None, expected: list[int]
) -> None:
    columns = {name: values for name, values in (("caption", caption), ("words", words)) if values}
    assert failed([sql], table(**columns)) == expected
    many = {name: values * 1000 for name, values in columns.items()}  # also within one vector of DuckDB's
    assert failed([sql], table(**many)) == expected * 1000


def test_the_first_rule_that_fails_is_named() -> None:
    rows = table(words=[1, 5, 1, 5], width=[10, 10, 300, 300])
    assert failed(["words > 2", "width > 200"], rows) == [0, 1, 0, -1]
    assert failed(["width > 200", "words > 2"], rows) == [0, 0, 1, -1]


def test_no_rules_and_no_rows() -> None:
    assert first_failed((), table(words=[1, 2])).tolist() == [-1, -1]
    assert first_failed(tuple(check("words > 2")), table(words=[1])[:0]).tolist() == []


def test_comments_do_not_swallow_the_next_rule() -> None:
    rows = table(words=[1, 5], width=[300, 10])
    assert failed(["words > 2 -- and (", "width > 200 /* ; */ -- x"], rows) == [0, 1]


def test_slices_and_chunks() -> None:
    rows = table(words=list(range(5000)))
    chunked = pa.concat_tables([rows[:10], rows[10:3000], rows[3000:]])
    expected = [0 if n <= 2500 else -1 for n in range(5000)]
    assert failed(["words > 2500"], chunked) == expected
    assert failed(["words > 2500"], rows[2000:]) == expected[2000:]


# Rules as SQL, and as Python with SQL's three values (None is NULL).
def _compare(name: str, test: Any) -> Any:
    return lambda row: None if row[name] is None else test(row[name])


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _and(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a: bool | None, b: bool | None) -> bool | None:
    return _not(_and(_not(a), _not(b)))


ATOMS: list[tuple[str, Any]] = [
    ("words > 2", _compare("words", lambda v: v > 2)),
    ("words % 2 = 0", _compare("words", lambda v: v % 2 == 0)),
    ("width >= 200", _compare("width", lambda v: v >= 200)),
    ("clip_score < 0.25", _compare("clip_score", lambda v: not math.isnan(v) and v < 0.25)),
    ("caption like 'a%'", _compare("caption", lambda v: v.startswith("a"))),
    ("length(caption) > 1", _compare("caption", lambda v: len(v) > 1)),
    ("caption is null", lambda row: row["caption"] is None),
    ("safe", lambda row: row["safe"]),
    ("try_cast(caption as int) = 5", _compare("caption", lambda v: True if v.strip() == "5" else None if not v.strip().isdigit() else False)),
]  # fmt: skip


def combined(inner: st.SearchStrategy[tuple[str, Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.one_of(
        inner.map(lambda a: (f"not ({a[0]})", lambda row: _not(a[1](row)))),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", lambda row: _and(p[0][1](row), p[1][1](row)))),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) or ({p[1][0]})", lambda row: _or(p[0][1](row), p[1][1](row)))),
    )  # fmt: skip


expressions = st.recursive(st.sampled_from(ATOMS), combined, max_leaves=5)
small_rows = st.fixed_dictionaries(
    {
        "words": st.none() | st.integers(-1, 5),
        "width": st.none() | st.sampled_from([0, 199, 200, 201]),
        "clip_score": st.none() | st.sampled_from([0.0, 0.125, 0.25, 0.5, float("nan")]),
        "caption": st.none() | st.sampled_from(["", "a", "ab", "5", "12", "b c", "é"]),
        "safe": st.none() | st.booleans(),
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(expressions, max_size=4), st.lists(small_rows, min_size=1, max_size=8))
def test_first_failed_equals_a_naive_evaluation(rules: list[tuple[str, Any]], rows: list[dict[str, Any]]) -> None:
    columns = table(**{name: [row[name] for row in rows] for name in rows[0]})
    expected = [next((i for i, (_, test) in enumerate(rules) if test(row) is not True), -1) for row in rows]
    checked = check(*(sql for sql, _ in rules))
    assert first_failed(tuple(checked), columns).tolist() == expected
    values = rule_values(checked, columns)
    assert values == [{f"r{i}": test(row) for i, (_, test) in enumerate(rules)} for row in rows]


def test_rule_values_of_errors_and_top_rules() -> None:
    checked = check("caption::int > 2", Top(top=0.5, of="words"), "words > 2 -- x")
    assert rule_values(checked, table(caption=["x", "5"], words=[1, 5])) == [
        {"r0": None, "r2": False},
        {"r0": True, "r2": True},
    ]
    assert rule_values(check(Top(top=0.5, of="words")), table(words=[1, 5])) == [{}, {}]


# ---- segments


def test_rules_are_cut_after_each_top_rule() -> None:
    top = Top(top=0.5, of="words")
    shapes = {
        "": [(0, 0, False)],
        "s": [(0, 1, False)],
        "t": [(0, 0, True), (1, 0, False)],
        "sst": [(0, 2, True), (3, 0, False)],
        "tsst": [(0, 0, True), (1, 2, True), (4, 0, False)],
        "stts": [(0, 1, True), (2, 0, True), (3, 1, False)],
    }
    for shape, expected in shapes.items():
        *cut, end = cut_segments(check(*("true" if kind == "s" else top for kind in shape)), {}, None)
        assert cut[-1].dedup and end == Segment(len(shape))
        assert [(part.first, len(part.rules), part.top is not None) for part in cut] == expected, shape
        assert all(rule.name == f"r{part.first + i}" for part in cut for i, rule in enumerate(part.rules))
        assert all(part.top.name == f"r{part.first + len(part.rules)}" for part in cut if part.top)


def test_threads_do_not_disturb_each_other() -> None:
    rules = tuple(check("words > 2500", "words % 2 = 0"))
    results: dict[int, bool] = {}

    def work(n: int) -> None:
        words = np.arange(n, n + 5000)
        expected = np.where(words <= 2500, 0, np.where(words % 2 == 0, -1, 1))
        rows = pa.table({"words": pa.array(words, pa.int32())})
        results[n] = all(first_failed(rules, rows).tolist() == expected.tolist() for _ in range(10))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


def test_real_captions(shared: Path) -> None:
    lines = (shared / "captions_multilingual.jsonl").read_text().splitlines()[:2000]
    texts = [str(text) for line in lines for text in json.loads(line)["translations"].values()]
    expected = [0 if len(text) <= 20 else 1 if "a" not in text else -1 for text in texts]
    assert set(expected) == {0, 1, -1}
    assert failed(["length(caption) > 20", "'a' in caption"], table(caption=texts)) == expected


def test_a_rule_that_is_nested_too_deeply_is_refused() -> None:
    assert "nested too deeply" in refusal(f"{' + '.join(['words'] * 600)} > 3")


def test_a_connection_keeps_some_prepared_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a search for settings asks for many: of all that went, the last answer is as right as the first."""
    monkeypatch.setattr("curate.decide.rules.rules._MOST_PREPARED", 3)
    table = pa.table({"words": pa.array([1, 5, 9], pa.int32())})
    for least in (*range(10), 5):
        rules = (Rule("words", f"words > {least}", ("words",)),)
        assert first_failed(rules, table).tolist() == [-1 if words > least else 0 for words in (1, 5, 9)]
        assert len(_local.prepared) <= 3


def test_the_columns_that_a_recipe_names() -> None:
    """In any section; what cannot be parsed names none, and is refused later."""
    recipe = parse_recipe(
        {
            "input": {"name": "a", "format": "parquet", "path": "a"},
            "rules": {
                "a": "NSFW = 'UNLIKELY' AND \"Some Column\" IS NULL AND len(list_filter(boxes, lambda x: x > small)) < 2",
                "b": {"top": 0.5, "of": "Similarity", "by": "site"},
                "c": "not an expression (",
            },
            "dedup": {"prefer": "beauty"},
            "output": {"repeat": "1 + stars", "columns": ["license"], "json_columns": ["note"]},
        }
    )
    named = {"nsfw", "some column", "boxes", "x", "small", "similarity", "site", "beauty", "stars", "license", "note"}
    assert named_columns(recipe) == named
