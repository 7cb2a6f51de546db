"""Mixtures draw each value's share of rows; a larger draw includes the smaller one; plans warn of too few rows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.query import asking
from curate.ask.whatif.estimate import estimate
from curate.decide.draw.sample import split_rows
from pipelines.prepare import prepare
from tests import kit
from tests.kit.whatif import warnings_of

SHARES = {"3": 3, "4": 1, "6": 0.001, "9": 1}


@given(st.integers(1, 10**12), st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9))
def test_shares_are_rounded_by_largest_remainders(rows, shares):
    split, exact = split_rows(rows, shares), [rows * share / sum(shares) for share in shares]
    assert split.sum() == rows
    assert all(abs(n - x) < 1 + 1e-3 for n, x in zip(split.tolist(), exact, strict=True))
    up = [x % 1 for n, x in zip(split, exact, strict=True) if n > x]
    down = [x % 1 for n, x in zip(split, exact, strict=True) if n < x]
    assert rows > 10**6 or not (up and down) or min(up) >= max(down) - 1e-6


def mixture(path, rows):
    return kit.recipe_of(path, "parquet", sample={"mixture": {"of": "words", "rows": rows, "shares": SHARES}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and one with fewer rows."""
    folder = tmp_path_factory.mktemp("mixture")
    path = kit.write_parquets(folder / "pool", kit.make_rows(600), 3, 100)
    return [kit.run_local(mixture(path, rows), folder / str(rows)) for rows in (300, 100)]


def kept_by_words(run):
    columns = zip(*(run.table(name)[column].to_pylist() for name, column in
                    (("decisions", "uid"), ("samples", "words"), ("decisions", "kept"))), strict=True)  # fmt: skip
    kept = {}
    for uid, words, is_kept in columns:
        if is_kept:
            kept.setdefault(words, set()).add(uid)
    return kept


def test_each_value_has_its_share_and_draws_nest(runs):
    kit.conserved(runs[0])
    groups = runs[0].run["selection"]["values"]["groups"]
    assert {name: of["wanted"] for name, of in groups.items()} == {"3": 180, "4": 60, "6": 0, "9": 60}
    left = {name: of["left"] for name, of in groups.items()}
    assert left["9"] == 0 and left["3"] < 180 < 100 + left["4"]
    large, small = map(kept_by_words, runs)
    assert {words: len(uids) for words, uids in large.items()} == {3: left["3"], 4: 60}
    assert {words: len(uids) for words, uids in small.items()} == {3: 60, 4: 20}
    assert all(small[words] < large[words] for words in small)


def test_estimates_hold_by_group(runs):
    with asking(str(runs[1].folder), "estimate_by", {"by": "words"}) as found:
        rows = [dict(zip(found.names, row, strict=True)) for row in found.rows]
    drawn = {row["group"]: row for row in rows if row["kept"]}
    assert set(drawn) == {"3", "4"}
    assert all(row["estimate"] == pytest.approx(row["survivors"]) for row in drawn.values())


def test_a_plan_warns_of_too_few(runs):
    recipe = mixture(str(runs[0].folder.parent / "pool/*.parquet"), 300)
    prepared = prepare(recipe, str(runs[0].folder.parent / "other"))
    found = estimate(prepared.context, prepared.plan.units, None)
    assert found.verdicts["kept"] == runs[0].counts["kept"]
    assert "too few rows with words '3', '9'" in warnings_of(found)[0]
