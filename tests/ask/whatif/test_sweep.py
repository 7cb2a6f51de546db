"""Sweeps equal single answers, one per value; searches find what brute force finds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from curate.ask.whatif import surviving
from curate.ask.whatif.answer import answer
from curate.ask.whatif.surviving import choose, expect, find_survivors, open_finished
from curate.ask.whatif.sweep import POINTS, Point, find_value, points_table, search, sweep, sweep_chart, write_plot
from curate.ask.whatif.swept_number import SweptNumber, parse_swept_number
from curate.base.errors import RecipeError, RunError
from curate.decide.draw import balance
from curate.decide.draw.balance import BalanceSelection
from curate.recipe.deciding import Balance


@pytest.fixture
def run(text_run):
    return open_finished(str(text_run.folder))


def single(run, overrides):
    found = answer(run, overrides)
    funnel = {row["rule"]: abs(row["whatif"] or 0) for row in found.funnel.to_pylist()}
    facts = dict(zip(found.facts["fact"].to_pylist(), found.facts["whatif"].to_pylist(), strict=True))
    return {
        "expected": found.expected, "error": found.error, "t": found.t, "duplicate": funnel["duplicate"],
        "survivors": facts["survivors"], "tail_share": facts["tail_share"], **{f"rule {k}": v for k, v in funnel.items()},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("base", "text", "points"),
    [
        (["rules.words=words > 3"], "balance.t=3,40,5", 12), ([], "balance.rows=300..700", 4),
        (["balance.rows=200"], "rules.best.top=0.5,0.9", 5), ([], "rules.words=words > {0..6}", 12),
        (["rules.side=null", "dedup.prefer=width"], "rules.best.top=0.2,0.4", 2),
        (["balance=null"], "rules.best=clip_score >= {0.1..0.9}", 4), ([], "rules.new=width < {100..600} and words > 2", 4),
    ],
)  # fmt: skip
def test_each_point_is_a_single_answer(run, base, text, points):
    number = parse_swept_number(text)
    found = list(sweep(run, base, number, points))
    assert [point.value for point in found] == number.values(points)
    for point in found:
        alone = single(run, [*base, number.override(point.value)])
        for name in ("expected", "survivors", "duplicate", "t", "tail_share"):
            assert getattr(point, name) == pytest.approx(alone[name], abs=1e-6), name
        assert point.error == pytest.approx(alone["error"], abs=1e-9)
        assert point.dropped == (None if number.rule is None else alone[f"rule {number.rule}"])
    table = points_table(found)
    assert table.schema == POINTS and len(table) == len(found)


def test_more_t_keeps_more(run):
    found = list(sweep(run, [], parse_swept_number("balance.t=1..5000"), 40))
    sizes = [point.expected for point in found]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == found[-1].survivors
    shares = [point.tail_share for point in found]
    assert shares == sorted(shares) and shares[-1] == 1 and found[-1].error == 0  # type: ignore[type-var]


def test_near_passes_are_swept_too(image_run):
    run = open_finished(str(image_run.folder))
    base = ["dedup.by=[uid, {phash: {distance: 12}}]"]
    for point in sweep(run, base, parse_swept_number("rules.words=words > {1..5}")):
        alone = single(run, [*base, f"rules.words=words > {point.value}"])
        assert (point.duplicate, point.expected) == pytest.approx((alone["duplicate"], alone["expected"]))


def test_sizes_in_one_pass(run, monkeypatch):
    """They equal single answers, also with limits by entry, which are stacked some at a time."""
    found = find_survivors(run, run.recipe)
    choices = [choose(found, balanced(run, t=t)) for t in (3, 1, 50, 10_000, 7)]
    sizes = BalanceSelection().sizes(choices, found.rows)
    for choice, (rows, error) in zip(choices, sizes, strict=True):
        alone = expect(found, choice)
        assert rows == alone.rows and error == pytest.approx(alone.error, abs=1e-9)
    by_entry = [replace(choice, limits=np.repeat(choice.limits, len(choice.counts))) for choice in choices]
    monkeypatch.setattr(balance, "STACK", 2 * len(found.counts))
    np.testing.assert_allclose(BalanceSelection().sizes(by_entry, found.rows), sizes)


def balanced(run, **balance):
    return run.recipe.model_copy(update={"balance": Balance(**balance)})


def test_a_target_size_by_t_is_the_largest_that_fits(run):
    survivors = find_survivors(run, run.recipe)
    ts = list(range(1, int(survivors.counts.max()) + 1))
    choices = [choose(survivors, balanced(run, t=t)) for t in ts]
    sizes = [rows for rows, _ in BalanceSelection().sizes(choices, survivors.rows)]
    for rows in (300, 500, 701, 10_000):
        best = max(t for t, size in zip(ts, sizes, strict=True) if size <= rows)
        assert choose(survivors, balanced(run, rows=rows)).values["t"] == best
        assert answer(run, [f"balance.rows={rows}"]).t == best


@pytest.mark.slow
@pytest.mark.parametrize("base", [[], ["balance=null"], ["dedup.prefer=width"]])
def test_a_target_size_by_a_fraction(run, base):
    """As trying fractions does: none gives more without giving too many."""
    fractions = ",".join(f"{i / 30 + 0.003:.4f}" for i in range(30))
    sizes = [point.expected for point in sweep(run, base, parse_swept_number(f"rules.best.top={fractions}"))]
    for rows in (30, 333, 600):
        found = answer(run, [*base, search(run, base, parse_swept_number("rules.best.top"), rows)]).expected
        assert max(size for size in sizes if size <= rows) <= found + 1e-6 and found <= rows  # sums have six digits


@pytest.mark.thorough
def test_a_target_size_by_a_threshold(run):
    number = parse_swept_number("rules.best=clip_score >= {0.0..1.0}")
    for rows in (200, 400):  # scores have two digits, and these are of some 0.8 and 0.6
        chosen = search(run, [], number, rows)
        below = round(float(chosen.rpartition(" ")[2]) - 0.01, 6)
        assert answer(run, [chosen]).expected <= rows < answer(run, [number.override(below)]).expected
    whole = search(run, [], parse_swept_number("rules.best=clip_score >= {0..1}"), 10_000)
    assert whole == "rules.best=clip_score >= 0"


SWEPT = SweptNumber("rules.x", "words > ", "", 0, 399, (), True)


@pytest.mark.parametrize("seed", range(20))
def test_find_value_equals_brute_force_for_monotone_sizes(seed):
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 50, 400) * (rng.random(400) < 0.3)
    sizes = np.cumsum(steps)[:: rng.choice([1, -1])].astype(float).tolist()
    asked = []

    def size(value):
        asked.append(value)
        return sizes[int(value)]

    for rows in (*rng.integers(0, int(max(sizes)) + 10, 20).tolist(), 10**6):
        asked.clear()
        best = max((size for size in sizes if size <= rows), default=None)
        if best is None:
            with pytest.raises(RunError, match="more than"):
                find_value(size, SWEPT, rows)
        else:
            assert sizes[int(find_value(size, SWEPT, rows))] >= best - 1 and len(asked) < 40


def test_find_value_never_gives_more_than_target_where_sizes_are_not_monotone():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = (np.linspace(0, 1000, 400) + rng.normal(0, 30, 400)).tolist()
        asked = []

        def size(value, sizes=sizes, asked=asked):
            asked.append(sizes[int(value)])
            return asked[-1]

        found = sizes[int(find_value(size, SWEPT, 500))]
        assert 350 < found <= 500 and found == max(size for size in asked if size <= 500)


def test_refusals(run, monkeypatch):
    for base, text, rows, error, part in (
        (["balance.rows=100"], "rules.best.top", 50, RecipeError, "balance.rows is 100"),
        ([], "balance.t=1..10", 50, RecipeError, "to search t, use --rows without --by"),
        ([], "rules.best.top=0.1,0.5", 50, RecipeError, "a rule with a range in braces"),
        ([], "rules.words.top", 50, RecipeError, "'top' does not fit 'words > 2'; accepted: another expression, or"),
        ([], "rules.best.top=0.5..0.9", 3, RunError, "even rules.best.top=0.5 is expected to give"),
        ([], "rules.x=nothing > {1..2}", 3, RecipeError, "no column 'nothing'"),
    ):
        with pytest.raises(error) as refused:
            search(run, base, parse_swept_number(text), rows)
        assert part in str(refused.value)
    monkeypatch.setattr(surviving, "find_survivors", None)  # a sweep checks before it begins
    with pytest.raises(RecipeError, match="less than or equal to 1"):
        next(sweep(run, [], parse_swept_number("rules.best.top=0.5..1.5"), 3))


# ---- the plot

POINT = [Point(1, 10, 2, 50, 3, 0, 0.5, 1)]


@pytest.mark.slow
def test_the_plot(run, tmp_path):
    number = parse_swept_number("balance.t=1..1000")
    found = list(sweep(run, [], number, 5))
    for kind, magic in (("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!DOCTYPE html>")):
        write_plot(str(tmp_path / f"plot.{kind}"), found, number, 123)
        data = (tmp_path / f"plot.{kind}").read_bytes()
        assert data.lstrip().startswith(magic) and b'src="http' not in data
    assert b"the run kept 123" in (tmp_path / "plot.svg").read_bytes()
    number = parse_swept_number("rules.x=caption <> '</script><script>alert(1)</script><!--' and words <{1..5}")
    write_plot(str(tmp_path / "plot.html"), POINT, number, 9)
    page = (tmp_path / "plot.html").read_text()
    assert "alert(1)" in page and "<script>alert(1)" not in page and "alert(1)</script" not in page
    number = parse_swept_number(r"rules.x=regexp_matches(caption, '\ux\x') or words > {1..5}")
    write_plot(str(tmp_path / "plot.svg"), POINT, number, 9)
    assert "ux" in (tmp_path / "plot.svg").read_text()


def test_the_chart_holds_the_points():
    points = [Point(1, 10, 2, 50, None, 0, 0.5, 1), Point(100, 40, 30, 50, None, 0, 1.0, 100)]
    chart = sweep_chart(points, parse_swept_number("balance.t=1..100"), 33)
    assert [(row["value"], row["rows"], row["low"], row["high"]) for row in chart["data"]["values"]] == [
        (1, 10, 6, 14), (100, 40, 0, 100),
    ]  # fmt: skip
    assert json.dumps(chart).count('"log"') == 3
    assert '"log"' not in json.dumps(sweep_chart(points, parse_swept_number("rules.x=words > {1..100}"), 33))


def test_a_sweep_goes_on_where_a_point_cannot_be_reached(run):
    points = list(sweep(run, [], parse_swept_number("balance.rows=1,300,2")))
    assert [point.expected is None for point in points] == [True, False, True]
    assert points[0].fault.startswith("balance.rows is 1, but even t = 1, the smallest, is expected to keep")
    assert points[0].t is None and points[0].survivors == points[1].survivors and not points[1].fault
    assert points_table(points)["expected"].null_count == 2
    chart = sweep_chart(points, parse_swept_number("balance.rows=1,300,2"), 100)
    assert "nan" not in json.dumps(chart).lower()


def test_a_share_of_the_tail(run):
    found = answer(run, ["balance.tail_share=0.2"])
    facts = {row["fact"]: row["whatif"] for row in found.facts.to_pylist()}
    counts = find_survivors(run, run.recipe).counts
    below = {int(t): counts[counts < t].sum() / counts.sum() for t in np.unique(counts[counts > 0])}
    assert abs(below[int(found.t or 0)] - 0.2) == min(abs(share - 0.2) for share in below.values())
    assert facts["tail_share"] == below[int(found.t or 0)]
    assert facts["smallest_tail_share"] == sorted(below.values())[1]
