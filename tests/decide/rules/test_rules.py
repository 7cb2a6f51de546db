"""Rules: which expressions are refused, and what a NULL or an error in a row does."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.decide.rules.rules import check_rules, first_failed, named_columns, rule_values
from curate.decide.settings import Segment, cut_segments
from curate.recipe.deciding import Top
from tests import kit
from tests.expressions.tables import COLUMNS, table


def check(*sqls):
    return check_rules({f"r{i}": sql for i, sql in enumerate(sqls)}, COLUMNS)


def failed(sqls, rows):
    found = first_failed(tuple(check(*sqls)), rows)
    assert found.dtype == np.int16
    return found.tolist()


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("", ["true or false"]), ("words", ["INTEGER", "true or false"]), ("caption", ["VARCHAR"]), ("1", ["INTEGER"]),
        ("NULL", ["NULL"]), ("{'a': words}", ["STRUCT"]), ("[words]", ["INTEGER[]"]),
        (Top(top=0.3, of="clip_scor"), ["'clip_scor'", "did you mean 'clip_score'?"]),
        (Top(top=0.3, of="caption"), ["numeric", "'caption'", "string"]),
        (Top(top=0.3, of="taken"), ["numeric", "'taken'"]),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused(sql, parts):
    with pytest.raises(RecipeError) as caught:
        check_rules({"mine": sql}, COLUMNS)
    assert not [part for part in ("rules.mine: ", *parts) if part not in str(caught.value)], caught.value


@pytest.mark.parametrize(
    ("sql", "caption", "words", "expected"),
    [
        ("words > 2", None, [1, None, 5], [0, 0, -1]), ("not (words > 2)", None, [1, None, 5], [-1, 0, 0]),
        ("words is null or words > 2", None, [1, None, 5], [0, -1, -1]), ("null::boolean", None, [1, None], [0, 0]),
        ("caption::int > 2", ["a", "5", "1", None, "", "3"], None, [0, -1, 0, 0, 0, -1]),
        ("caption::int > 2 or words = 1", ["a", "5", "a"], [1, 1, 2], [0, -1, 0]),
        ("words * words > 2", None, [2, 2**31 - 1, None, -5], [-1, 0, 0, -1]),
        ("strptime(caption, '%Y') is not null", ["2020", "x", "1999"], None, [-1, 0, -1]),
        ("json_extract(caption, '$.a') = '1'", ['{"a": 1}', "{", "[]"], None, [-1, 0, 0]),
        ("words % (words - 1) = 0", None, [1, 2, 3], [0, -1, 0]),
        ("chr(words) = 'A'", None, [65, -1, 2**31 - 1, 66], [-1, 0, 0, 0]),
    ],
)  # fmt: skip
def test_null_or_an_error_on_a_value_fails_its_row_only(sql, caption, words, expected):
    columns = {name: values for name, values in (("caption", caption), ("words", words)) if values}
    assert failed([sql], table(**columns)) == expected
    many = {name: values * 1000 for name, values in columns.items()}  # also within one vector of DuckDB's
    assert failed([sql], table(**many)) == expected * 1000


def test_slices_and_chunks():
    rows = table(words=list(range(5000)))
    chunked = pa.concat_tables([rows[:10], rows[10:3000], rows[3000:]])
    expected = [0 if n <= 2500 else -1 for n in range(5000)]
    assert failed(["words > 2500"], chunked) == expected
    assert failed(["words > 2500"], rows[2000:]) == expected[2000:]


# Rules as SQL, and as Python with SQL's three values (None is NULL).
def _compare(name, test):
    return lambda row: None if row[name] is None else test(row[name])


def _not(value):
    return None if value is None else not value


def _and(a, b):
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a, b):
    return _not(_and(_not(a), _not(b)))


ATOMS = [
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


def combined(inner):
    return st.one_of(
        inner.map(lambda a: (f"not ({a[0]})", lambda row: _not(a[1](row)))),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) and ({p[1][0]})", lambda row: _and(p[0][1](row), p[1][1](row)))),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]}) or ({p[1][0]})", lambda row: _or(p[0][1](row), p[1][1](row)))),
    )  # fmt: skip


expressions = st.recursive(st.sampled_from(ATOMS), combined, max_leaves=5)
small_rows = st.fixed_dictionaries({
    "words": st.none() | st.integers(-1, 5), "width": st.none() | st.sampled_from([0, 199, 200, 201]),
    "clip_score": st.none() | st.sampled_from([0.0, 0.125, 0.25, 0.5, float("nan")]),
    "caption": st.none() | st.sampled_from(["", "a", "ab", "5", "12", "b c", "é"]), "safe": st.none() | st.booleans(),
})  # fmt: skip


@given(st.lists(expressions, max_size=4), st.lists(small_rows, min_size=1, max_size=8))
def test_first_failed_equals_a_naive_evaluation(rules, rows):
    columns = table(**{name: [row[name] for row in rows] for name in rows[0]})
    expected = [next((i for i, (_, test) in enumerate(rules) if test(row) is not True), -1) for row in rows]
    checked = check(*(sql for sql, _ in rules))
    assert first_failed(tuple(checked), columns).tolist() == expected
    values = rule_values(checked, columns)
    assert values == [{f"r{i}": test(row) for i, (_, test) in enumerate(rules)} for row in rows]


def test_rule_values_of_errors_and_top_rules():
    checked = check("caption::int > 2", Top(top=0.5, of="WORDS"), "words > 2 -- x")
    values = rule_values(checked, table(caption=["x", "5"], words=[1, 5]))
    assert values == [{"r0": None, "r2": False}, {"r0": True, "r2": True}]
    assert rule_values(check(Top(top=0.5, of="words")), table(words=[1, 5])) == [{}, {}]


def test_rules_are_cut_after_each_top_rule():
    top = Top(top=0.5, of="words")
    shapes = {
        "": [(0, 0, False)], "s": [(0, 1, False)], "t": [(0, 0, True), (1, 0, False)],
        "sst": [(0, 2, True), (3, 0, False)], "tsst": [(0, 0, True), (1, 2, True), (4, 0, False)],
        "stts": [(0, 1, True), (2, 0, True), (3, 1, False)],
    }  # fmt: skip
    for shape, expected in shapes.items():
        *cut, end = cut_segments(check(*("true" if kind == "s" else top for kind in shape)), {}, None)
        assert cut[-1].dedup and end == Segment(len(shape))
        assert [(part.first, len(part.rules), part.top is not None) for part in cut] == expected, shape
        assert all(rule.name == f"r{part.first + i}" for part in cut for i, rule in enumerate(part.rules))
        assert all(part.top.name == f"r{part.first + len(part.rules)}" for part in cut if part.top)


def test_threads_do_not_disturb_each_other():
    rules = tuple(check("words > 2500", "words % 2 = 0"))

    def work(n):
        words = np.arange(n, n + 5000)
        expected = np.where(words <= 2500, 0, np.where(words % 2 == 0, -1, 1)).tolist()
        return all(first_failed(rules, table(words=words)).tolist() == expected for _ in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_the_columns_that_a_recipe_names():
    """Any section may name columns; an expression that cannot be parsed names none, and is refused later."""
    rules = {
        "a": "NSFW = 'UNLIKELY' AND \"Some Column\" IS NULL AND len(list_filter(boxes, lambda x: x > small)) < 2",
        "b": {"top": 0.5, "of": "Similarity", "by": "site"}, "c": "not an expression (",
    }  # fmt: skip
    output = {"repeat": "1 + stars", "columns": ["license"], "json_columns": ["note"]}
    recipe = kit.recipe_of("a", "parquet", rules=rules, dedup={"prefer": "beauty"}, output=output)
    named = {"nsfw", "some column", "boxes", "x", "small", "similarity", "site", "beauty", "stars", "license", "note"}
    assert named_columns(recipe) == named
