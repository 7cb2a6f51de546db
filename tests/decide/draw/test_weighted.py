"""Rows are drawn by weight as numpy's choice without replacement draws them, and estimates by π hold."""

import numpy as np
import pyarrow as pa
import pytest

from curate.decide.draw.sample import WeightedChoice, weighted_keys
from curate.expressions.check import CheckedExpression
from tests import kit
from tests.decide.draw.cuts import find

RUNS = 200
WEIGHT = "CASE WHEN clip_score > 0.05 THEN exp(clip_score * 3) - 1.2 END"


def draw(weights, rows, seed):
    """Which rows are drawn, and π of each row."""
    uids = pa.array([f"{uid:032x}" for uid in range(len(weights))], pa.string())
    keys = weighted_keys(uids, weights, seed)
    cut = find([keys], np.array([rows]), 2)
    choice = WeightedChoice(cut, CheckedExpression("w", ("w",), "DOUBLE"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("curate.decide.draw.sample.read_weights", lambda *of: weights)
        return cut.draws(keys, np.full(len(weights), 0.5)) < 1, choice.inclusion(None)  # type: ignore[arg-type,return-value]


def test_each_row_is_as_likely_as_with_numpy():
    rng = np.random.default_rng(0)
    weights = np.concatenate([rng.lognormal(0, 1.5, 60), [0.0, 0.0]])
    ours, theirs, estimates = np.zeros((RUNS, 62)), np.zeros((RUNS, 62)), np.zeros((RUNS, 2))
    for seed in range(RUNS):
        is_in, pi = draw(weights, 20, seed)
        ours[seed] = is_in
        theirs[seed, rng.choice(62, 20, replace=False, p=weights / weights.sum())] = 1
        kept = np.flatnonzero(is_in)
        estimates[seed] = (1 / pi[kept]).sum(), (weights[kept] / pi[kept]).sum()
    assert (ours.sum(axis=1) == 20).all() and not ours[:, 60:].any()
    p = theirs.mean(axis=0)
    error = np.sqrt((p * (1 - p) + ours.var(axis=0)) / RUNS)
    assert (np.abs(ours.mean(axis=0) - p) <= 4 * error + 1e-9).all()
    for estimate, true in zip(estimates.T, (60, weights.sum()), strict=True):
        assert abs(estimate.mean() - true) < 4 * estimate.std() / np.sqrt(RUNS)


def test_smaller_draws_are_part_of_larger_ones():
    weights = np.random.default_rng(1).lognormal(0, 1, 100)
    few, many = (draw(weights, rows, 3)[0] for rows in (10, 40))
    assert few.sum() == 10 and many.sum() == 40 and not (few & ~many).any()
    all_of_them, pi = draw(np.append(weights, [0, np.nan]), 1000, 3)
    assert all_of_them.sum() == 100 and pi.tolist() == [1.0] * 100 + [0, 0]


def test_rows_without_a_positive_weight_are_never_drawn(tmp_path):
    pool = kit.make_rows(300)
    run = kit.curate(tmp_path, pool, sample={"weights": WEIGHT, "rows": 50})
    assert run.counts["kept"] == 50
    decisions = run.table("decisions").to_pylist()
    for score, row in zip(run.table("scores")["clip_score"].to_pylist(), decisions, strict=True):
        if row["kept"] or row["rule"] == "sample":
            drawable = score is not None and score > 0.07
            assert row["kept"] == (row["draw"] < 1) and (row["probability"] > 0) == drawable
            assert drawable or row["draw"] == np.inf
    wanted = kit.curate(tmp_path / "more", pool, sample={"weights": WEIGHT, "rows": 1000}).run["selection"]
    assert wanted["summary"][0].startswith("sample: 1,000 rows wanted, ")
