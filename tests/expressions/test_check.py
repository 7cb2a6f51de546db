"""Which expressions of recipes are refused before a run; none can name a file."""

import resource
from pathlib import Path

import pyarrow as pa
import pytest

from curate.base.errors import RecipeError
from curate.decide.rules.rules import check_rules
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


ACCEPTED = {  # columns → expressions that use them
    "words": [
        "words > 2", 'WORDS > 2 and "words" < 9', "words > 2 -- a comment", "/* a comment */ words > 2 /* ; select */",
        "words\n  > 2\n", "words between 2 and 5", "words in (1, 2, 3)", "words::double / 2 > 1",
        "words > 2 and len(list_filter([1], lambda words: words > 0)) > 0",
        # errors on some values concern only their rows
        "ln(words - 1) > 0.1", "sqrt(words - 2) > 1", "words + 2147483647 > 2",
    ],
    "caption": [
        "caption ilike '%cat%' or 'dog' in caption", "not regexp_matches(caption, '(?i)^img_\\d')",
        "try_cast(caption as int) > 2", "len([x for x in string_split(caption, ' ') if x = 'a']) > 0",
        "strptime(caption, '%Y') is not null", "json_extract(caption, '$.a') = '1'", "caption::int > 2",
        "repeat(caption, 3) = 'a'",
    ],
    "clip_score words": ["case when words > 2 then clip_score > 0.3 end"],
    "height width": ["least(width, height) >= 200", "greatest(width, height) / least(width, height) <= 3.0"],
    "taken": [
        "taken > timestamp '2020-01-01'", "year(taken) = 2020",
        "age(taken, timestamp '2020-01-01') > interval 1 year",
    ],
    "caption tags": ["list_any_value(list_transform(tags, lambda x: x = caption))"],
    "width words": ["list_sum([words, width]) > 2"], "tags": ["list_contains(tags, 'a')"], "price": ["price > 1.5"],
    "clip_score": ["clip_score is not null"], "phash": ["phash = 18446744073709551615"], "safe": ["safe"],
    "url": ["split_part(url, '/', 3) = 'x.org'"], "": ["true", "NULL::BOOLEAN"], "Odd Name": ['"Odd Name" > 1'],
}  # fmt: skip


@pytest.mark.parametrize("columns", ACCEPTED)
def test_scalar_expressions_are_accepted(columns):
    everything = table(caption=["a", None, "{", "5"], words=[1, None, 0, 2**31 - 1])
    for sql in ACCEPTED[columns]:
        assert " ".join(sorted(check(sql).columns)) == columns
        assert len(evaluate(f"TRY(({sql}\n))", everything)) == 4  # and it runs, whatever the rows hold


REFUSED = {  # parts of the message → expressions
    "not a SQL expression": [
        "words >", "(words > 2", "words > 2;", "words > 2; select true", "true); drop table batch; select (true",
        "words > 2 as x",
    ],
    "not one SQL expression": [
        "true), (false", "true) from (select 1", "true) union (select true", "true) where (true", "true) group by (1",
        "true) having (true", "true) limit (1", "true) order by (1",
    ],
    "subquery": [
        "select true", "words in (select 1)", "words = (select 2)", "exists (select 1)", "words > all (select 1)",
        "list_transform(tags, lambda x: (select true))[1]",
    ],
    "aggregate": [
        "count(*) > 2", "words > avg(words)", "approx_quantile(words, 0.5) > 1", "geomean(clip_score) > 1",
        "wavg(clip_score, words) > 1",
    ],
    "sum()|aggregate|top": ["sum(words) > 2"],
    "a rule reads one row, but quantile() needs many rows|derive: {place: quantile(COLUMN)}": ["quantile(words) > 0.8"],
    "a rule reads one row, but zscore() needs many rows|write place instead": ["zscore(words) > 0"],
    "window": ["row_number() over () > 1", "lag(words) over (order by width) > 1", "sum(words) over () > 1"],
    "unnest": ["unnest([true, false])"], "UNNEST": ["generate_subscripts([1, 2], 1) > 1"],
    "star": ["* > 2", "*", "columns('w.*') > 2"], "positional reference": ["#1 > 2"], "default": ["default"],
    "no column 'rowid'": ["rowid > 2"], "no column 'en'|write it in single quotes: 'en'": ['caption = "en"'],
    "no column 'missing'|write it in single quotes: 'en'": ['missing = "en" and caption <> \'x\''],
    "GROUPING": ["grouping(words) = 0"], "parameter": ["words > ?", "words > $1", "words > $n"],
    "deterministic": [
        "random() < 0.5", "list_transform([1], lambda x: random())[1] < 0.5", "uuid()::varchar > 'a'",
        "gen_random_uuid()::varchar > 'a'", "now() > timestamp '2020-01-01'", "today() > date '2020-01-01'",
        "get_current_timestamp() > timestamp '2020-01-01'", "transaction_timestamp() > timestamp '2020-01-01'",
        "current_localtimestamp() > timestamp '2020-01-01'", "age(taken) > interval 1 year",
        "ago(interval 1 day) > taken", "pg_postmaster_start_time() > taken", "pg_conf_load_time() > taken",
        "nextval('s') > 1", "txid_current() > 1", "setseed(0.5) is null", "current_setting('threads') = '1'",
        "getvariable('x') = 1",
    ],
    "current_date": ["current_date > date '2020-01-01'"],
    "current_timestamp": ["current_timestamp > timestamp '2020-01-01'"],
    "localtimestamp": ["localtimestamp > timestamp '2020-01-01'"],
    "many": ["words > 'many'"], "high": ["clip_score > 'high'"], "perhaps": ["safe = 'perhaps'"],
    "yesterday": ["taken > 'yesterday'"], "nosuch": ["nosuch(words)"], "upper": ["upper(words, caption) = 'A'"],
    "samples": ["samples.words > 2"], "'x'": ["words.x > 2"],
    "rules.mine": [  # texts in the place of numbers
        "least(caption, words) > 2", "caption > 2", "words < 2 or caption > 2", "caption = words",
        "caption between 1 and 2",
    ],
    "'wrods'|did you mean 'words'?|clip_score": ["wrods > 2"], "did you mean 'clip_score'?": ["clip_scores > 2"],
    "'zzzzz'|columns: caption, url, words": ["zzzzz > 2"],
    "nested too deeply": [f"{' + '.join(['words'] * 600)} > 3", "(" * 100_000],  # DuckDB takes minutes, and gigabytes
}  # fmt: skip


@pytest.mark.parametrize("parts", REFUSED)
def test_everything_else_is_refused(parts):
    for sql in REFUSED[parts]:
        message = refusal(sql)
        assert message.startswith("rules.mine: ") and len(message) < 1500
        assert not [part for part in parts.split("|") if part not in message], message
    for sql in (f"{'(words) + ' * 200}1 > 3", "len(range(words)) > 3"):
        assert check(sql).kind == "BOOLEAN"


def test_an_expression_in_place_of_a_column_belongs_under_derive():
    with pytest.raises(RecipeError) as error:
        check_rules({"best": Top(top=0.5, of="zscore(words)+1")}, pa.schema([("words", pa.int32())]))
    assert "to use an expression, name it under derive: {mean: 'zscore(words)+1'}, and write mean" in str(error.value)


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
