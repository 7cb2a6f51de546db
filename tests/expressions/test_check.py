"""What is refused of a recipe's expressions before a run, and that none can name a file."""

import resource
from pathlib import Path

import pyarrow as pa
import pytest

from curate.base.errors import RecipeError
from curate.decide.rules.rules import check_rules
from curate.expressions import check as check_module
from curate.expressions.check import check_count, check_expression
from curate.expressions.evaluate import evaluate
from curate.recipe.deciding import Top
from tests.expressions.tables import COLUMNS, SECRET, table


def check(sql):
    return check_expression("rules.mine", sql, COLUMNS)


def refusal(sql, columns=COLUMNS):
    with pytest.raises(RecipeError) as caught:
        check_expression("rules.mine", sql, columns)
    return str(caught.value)


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
def test_scalar_expressions_are_accepted(sql, columns):
    assert sorted(check(sql).columns) == sorted(columns)
    everything = table(caption=["a", None, "{", "5"], words=[1, None, 0, 2**31 - 1])
    assert len(evaluate(f"TRY(({sql}\n))", everything)) == 4  # and it runs, whatever the rows hold


# ---- what is refused


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        # not one expression
        ("words >", ["not a SQL expression"]),
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
        ('caption = "en"', ["no column 'en'", "a text has single quotes: 'en'"]),
        ('missing = "en" and caption <> \'x\'', ["no column 'missing'", "a text has single quotes: 'en'"]),
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
        # not of the types at hand
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
def test_everything_else_is_refused(sql, parts):
    message = refusal(sql)
    assert message.startswith(f"rules.mine: {sql!r}") or message.startswith("rules.mine: no column")
    assert not [part for part in parts if part not in message], message


def test_an_expression_in_place_of_a_column_belongs_under_derive():
    with pytest.raises(RecipeError) as error:
        check_rules({"best": Top(top=0.5, of="zscore(words)+1")}, pa.schema([("words", pa.int32())]))
    assert "an expression gets a name under derive: {mean: 'zscore(words)+1'}, then mean here" in str(error.value)


@pytest.mark.parametrize(
    "sql", ["caption > 2", "words < 2 or caption > 2", "caption = words", "caption between 1 and 2"]
)
def test_text_is_not_taken_for_numbers(sql):
    assert "rules.mine" in refusal(sql)
    assert check(sql.replace("caption", "try_cast(caption as int)"))


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("wrods > 2", ["'wrods'", "did you mean 'words'?", "clip_score"]),
        ("clip_scores > 2", ["did you mean 'clip_score'?"]),
        ("zzzzz > 2", ["'zzzzz'", "columns: caption, url, words"]),
    ],
)
def test_a_missing_column_is_named(sql, parts):
    message = refusal(sql)
    assert message.startswith("rules.mine: ")
    assert not [part for part in parts if part not in message], message


def test_a_rule_that_is_nested_too_deeply_is_refused():
    assert "nested too deeply" in refusal(f"{' + '.join(['words'] * 600)} > 3")
    assert "nested too deeply" in refusal("(" * 100_000)  # DuckDB's parser takes minutes, and gigabytes
    check_expression("rules.a", f"{'(words) + ' * 200}1 > 3", COLUMNS)


def test_messages_do_not_show_all_of_a_long_expression():
    assert len(refusal("not " * 50_000 + "words > 1")) < 1500


# ---- files

FILE_SQL = [
    "(select content from read_text('{0}')) is null", "read_text('{0}') is null", "read_blob('{0}') is null",
    "exists (from '{0}')", "exists (from read_csv('{0}'))", "exists (from read_json('{0}'))",
    "exists (from read_parquet('{0}'))", "exists (from glob('{1}/*'))", "exists (from sniff_csv('{0}'))",
    "exists (from parquet_metadata('{0}'))", "exists (from query('from ''{0}'''))",
    "exists (with x as (copy (select 1) to '{1}/new') select 1)", "true); copy (select 1) to '{1}/new'; select (true",
    "true); attach '{1}/new' as db; select (true", "true); install httpfs; select (true",
    "true); load '{0}'; select (true", "true); export database '{1}/new'; select (true",
    "true); set enable_external_access=true; select (true", "getenv('HOME') = '/'", "exists (from secret_table)",
]  # fmt: skip


@pytest.mark.parametrize("sql", FILE_SQL)
def test_no_rule_can_name_a_file(sql, secret):
    secret_table = pa.table({"secret": [SECRET]})  # noqa: F841 (a variable that DuckDB must not find)
    message = refusal(sql.format(*secret))
    assert SECRET not in message
    assert [path.name for path in Path(secret[1]).iterdir()] == ["secret.txt"]


def test_a_count_is_an_integer():
    assert check_count("output.repeat", "words + 1", COLUMNS).kind == "INTEGER"
    with pytest.raises(RecipeError, match=r"output.repeat: 'clip_score' is of type FLOAT; accepted: an integer"):
        check_count("output.repeat", "clip_score", COLUMNS)


LARGE = [
    "len(range(1000000000)) > 1",
    "len(repeat('x', 1000000000)) > 1",
    "len(repeat(caption, words * 1000000)) > 1",
    "len(list_transform(range(words * 100000), lambda i: caption || i)) > 1",
]


@pytest.mark.parametrize("sql", LARGE)
def test_values_that_take_all_memory_are_refused(sql):
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    assert "takes over 256 MiB for 2,048 rows; accepted: shorter lists and texts" in refusal(sql)
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


@pytest.mark.parametrize("sql", ["len(range(words)) > 3", "repeat(caption, 3) = 'a'", "ln(words - 100) > 1"])
def test_values_of_a_row_are_accepted(sql):
    assert check_expression("rules.rule", sql, COLUMNS).kind == "BOOLEAN"


def test_a_function_is_looked_up_once():
    check_module._describe_function.cache_clear()
    for n in range(3):
        check_expression("rules.rule", f"length(caption) + abs(words) > {n + 1000}", COLUMNS)
    assert check_module._describe_function.cache_info().misses == 3
