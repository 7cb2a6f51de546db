"""Texts of sweeps: the number that they change, and its values."""

import pytest

from curate.ask.whatif.swept_number import parse_swept_number
from curate.base.errors import RecipeError

SIZES = ["sample.rows", "sample.mixture.rows", "sample.soft_cap.draws", "sample.soft_cap.batch"]
SIZES += [f"sample.quotas.{key}" for key in ("rows", "least", "most")]


@pytest.mark.parametrize(
    ("text", "points", "overrides"),
    [
        ("balance.t=10..1000", 3, ["balance.t=10", "balance.t=100", "balance.t=1000"]),
        ("balance.t=1..3", 12, ["balance.t=1", "balance.t=2", "balance.t=3"]),
        ("balance.rows=100,50,70", 12, ["balance.rows=100", "balance.rows=50", "balance.rows=70"]),
        ("balance.t=7", 2, ["balance.t=7"]),
        *((f"{key}=10..1000", 3, [f"{key}={n}" for n in (10, 100, 1000)]) for key in SIZES),
        ("sample.quotas.least=0..4", 3, [f"sample.quotas.least={n}" for n in (0, 2, 4)]),
        ("balance.t={1..3}", 12, ["balance.t=1", "balance.t=2", "balance.t=3"]),
        ("balance.rows={100, 50}", 12, ["balance.rows=100", "balance.rows=50"]),
        ("rules.best.top={0.25..0.5}", 2, ["rules.best.top=0.25", "rules.best.top=0.5"]),
        ("rules.best.top=0.1..0.5", 3, ["rules.best.top=0.1", "rules.best.top=0.3", "rules.best.top=0.5"]),
        ("rules.best.top=0.25,0.5", 3, ["rules.best.top=0.25", "rules.best.top=0.5"]),
        (
            "rules.aligned=clip_score >= {0.1..0.2}", 2,
            ["rules.aligned=clip_score >= 0.1", "rules.aligned=clip_score >= 0.2"],
        ),
        ("rules.words=words > {1..3} and words < 9", 9, [f"rules.words=words > {n} and words < 9" for n in (1, 2, 3)]),
        ("rules.x=s > {-1..1}", 3, ["rules.x=s > (-1)", "rules.x=s > 0", "rules.x=s > 1"]),
        ("rules.x=s -{-1..1} > 0", 2, ["rules.x=s -(-1) > 0", "rules.x=s -1 > 0"]),
        ("rules.x=s > {0.0000001..0.0000003}", 2, ["rules.x=s > 0.0000001", "rules.x=s > 0.0000003"]),
        (
            "rules.x=regexp_matches(caption, '\\d{2,3}') and words > {2..3}", 2,
            [f"rules.x=regexp_matches(caption, '\\d{{2,3}}') and words > {n}" for n in (2, 3)],
        ),
        ("rules.x=s >= {0.4..0.7}", 5, [f"rules.x=s >= {n}" for n in (0.4, 0.47, 0.55, 0.62, 0.7)]),
        ("rules.x=s >= {0.4, 0.5,1}", 9, [f"rules.x=s >= {n}" for n in ("0.4", "0.5", "1.0")]),
        ("rules.x=words > {1,-5} and s < 2", 9, ["rules.x=words > 1 and s < 2", "rules.x=words > (-5) and s < 2"]),
        ("balance.t=1..1000", 7, [f"balance.t={n}" for n in (1, 3, 10, 30, 100, 300, 1000)]),
        ("rules.b={top: {0.1..0.2}, of: s}", 2, ["rules.b={top: 0.1, of: s}", "rules.b={top: 0.2, of: s}"]),
    ],
)  # fmt: skip
def test_values(text, points, overrides):
    number = parse_swept_number(text)
    assert [number.override(value) for value in number.values(points)] == overrides


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("balance.t={1..9}", [1, 3, 5, 9]),  # the t that was solved, not the recipe's
        ("rules.aligned=clip_score>={0.1..0.5}", [0.1, 0.25, 0.3, 0.5]),  # spaces do not matter
        ("rules.aligned=clip_score >= {0.3..0.5}", [0.3, 0.4, 0.5]),  # it is not in the range
        ("rules.aligned=clip_score >= {0..1}", [0, 1]),  # nor a whole number
        ("rules.aligned=clip_score > {0.1..0.5}", [0.1, 0.3, 0.5]),  # another rule
        ("rules.aligned=clip_score >= {0.1,0.5}", [0.1, 0.5]),  # listed values stay alone
        ("rules.cold=temperature > {-9..-1}", [-9, -5, -3, -1]),
        ("rules.best.top={0.1..0.5}", [0.1, 0.2, 0.3, 0.5]),
        ("sample.rows={10..90}", [10, 30, 40, 90]),
        ("sample.quotas.most={10..90}", [10, 30, 90]),
    ],
)
def test_the_value_of_a_run_is_among_those_of_a_range(text, values):
    rules = {"aligned": "clip_score  >= 0.25", "best": {"top": 0.2, "of": "s"}, "cold": "temperature > (-3)"}
    recipe = {"balance": {"t": 2}, "rules": rules, "sample": {"rows": 40}}
    assert parse_swept_number(text).with_value_of(recipe, 5).values(3) == values


def test_a_fraction_alone_is_its_whole_range():
    number = parse_swept_number("rules.best.top")
    assert number.rule == "best" and number.override(number.low) == "rules.best.top=0.000000001"
    assert number.high == 1 and parse_swept_number("balance.t=1..2").rule is None


LIMIT = "accepted: at most 1,000 values, each"
REFUSED = {
    "names no value": [
        "", "balance.t", "balance.t=a..b", "balance.t=1..", "balance.t={1..2", "rules.x=words > 2", "rules.x=words > {2}",
        "rules.x=words > {2..3} and words < {4..5}", "rules.x=words > {2,3} and words < {4,5}", "rules.x.y.top=0.1..0.2",
        "dedup.by=1..2", "output.rows_per_shard=1..2",
    ],
    "a range or list in braces": ["rules.x=words > {2..3:1}"],
    "a range from a smaller number to a larger one": ["balance.t=100..10"],
    "rules.NAME.rows, balance.rows, sample.rows, sample.mixture.rows, ": ["sample.soft_cap.penalty=0.1..0.2"],
    f"rules.x: 2 values up to 1e+19; {LIMIT}": ["rules.x=words > {0..9999999999999999999}"],
    f"balance.t: 2 values up to inf; {LIMIT}": ["balance.t={1..1" + "0" * 5000 + "}"],
    f"rules.x: 1,001 values up to 1; {LIMIT}": [f"rules.x=words > {{{','.join(['1'] * 1001)}}}"],
}  # fmt: skip


@pytest.mark.parametrize("part", REFUSED)
def test_refusals(part):
    for text in REFUSED[part]:
        with pytest.raises(RecipeError) as refused:
            parse_swept_number(text)
        assert part in str(refused.value)
