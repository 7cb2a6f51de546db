"""Soft cap sampling makes exactly M draws, and draws each row as often as the published loop does."""

import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.diff import diff_runs
from curate.ask.whatif.answer import answer
from curate.ask.whatif.surviving import open_finished
from curate.base.errors import RunError
from curate.base.numeric.elementary import log, mix64, unit
from curate.decide.draw import soft_cap
from curate.decide.draw.soft_cap import Scores, find_draws, round_salts
from curate.recipe.recipe import change_recipe
from tests import kit

RUNS = 200


def scores_of(values, seed=0):
    hashes = np.random.default_rng(seed).integers(0, 2**64, len(values), np.uint64)
    return Scores(hashes, values.astype(np.float32))


def times(part, draws, penalty):
    """How often each row is drawn, as a unit computes it."""
    out = np.full(len(part.hashes), draws.whole, np.int32)
    salts = round_salts(draws.whole, len(draws.keys))
    soft_cap._replay(part.hashes, part.scores, penalty, salts, draws.keys, draws.hashes, out)
    return out


def plain(part, draws, penalty, batch):
    """Sorts all keys in each round."""
    out, left, number = np.zeros(len(part.hashes), np.int32), draws, 0
    while left:
        size = min(batch, len(out), left)
        bits = mix64(part.hashes ^ round_salts(number, 1)[0])
        keys = np.array([-log(-log(unit(x))) for x in bits]) + (part.scores.astype(np.float64) - penalty * out)
        out[np.lexsort((part.hashes, keys))[len(out) - size :]] += 1
        left, number = left - size, number + 1
    return out


def published(rng, scores, draws, penalty, batch):
    """The paper's loop, with numpy's choice."""
    out, left, scores = np.zeros(len(scores), np.int64), draws, scores.copy()
    while left:
        p = np.exp(scores - scores.max())
        drawn = rng.choice(len(scores), min(batch, left), replace=False, p=p / p.sum())
        out[drawn] += 1
        scores[drawn] -= penalty
        left -= len(drawn)
    return out


def test_sixteen_bytes_a_row():
    """Twelve of the bytes are what units sent, without a copy; threads need some more."""
    rows, pieces = 200_000, 50
    part = scores_of(np.random.default_rng(1).normal(size=rows))
    find_draws([part], 100, 0.15, 50)  # compiled by now
    tracemalloc.start()
    try:
        parts = [Scores(*(column[i::pieces].copy() for column in part)) for i in range(pieces)]
        sent, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        find_draws(parts, 20_000, 0.15, 2000)
        assert (tracemalloc.get_traced_memory()[1] - sent) / rows < 8
    finally:
        tracemalloc.stop()


ROWS = st.lists(st.floats(-30, 30), min_size=1, max_size=60)


@given(ROWS, st.integers(1, 300), st.floats(0, 2), st.integers(1, 70), st.integers(1, 4))
def test_it_is_the_sorted_keys_whatever_the_parts(values, draws, penalty, batch, parts):
    part = scores_of(np.array(values))
    pieces = [Scores(part.hashes[i::parts], part.scores[i::parts]) for i in range(parts)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(soft_cap, "_TOGETHER", 10)
        found = find_draws(pieces, draws, penalty, batch)
    drawn = times(part, found, penalty)
    assert drawn.tolist() == plain(part, draws, penalty, batch).tolist() and drawn.sum() == draws


@pytest.mark.thorough
def test_rows_are_drawn_as_often_as_by_the_published_loop():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, 80).astype(np.float32).astype(np.float64)
    ours = np.array(
        [times(part := scores_of(scores, seed), find_draws([part], 230, 0.15, 20), 0.15) for seed in range(RUNS)]
    )
    theirs = np.array([published(rng, scores, 230, 0.15, 20) for _ in range(RUNS)])
    assert (ours.sum(axis=1) == 230).all()
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / RUNS)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * error + 1e-9).all()
    spread = np.sqrt((ours**2).var(axis=0) + (theirs**2).var(axis=0)) / np.sqrt(RUNS)
    assert (np.abs((ours**2).mean(axis=0) - (theirs**2).mean(axis=0)) < 4 * spread + 1e-9).all()


@pytest.mark.parametrize(("draws", "batch"), [(10**12, 100_000), (10**12, 10), (10**8, 100)])
def test_more_batches_than_a_run_takes_are_refused(draws, batch):
    part = Scores(np.arange(26, dtype=np.uint64), np.zeros(26, np.float32))
    with pytest.raises(RunError, match=r"draws of 26 rows in batches of \d+ need .* accepted: at most 100,000"):
        find_draws([part], draws, 0.15, batch)


def test_a_run_repeats_rows(tmp_path, monkeypatch):
    section = {"soft_cap": {"of": "clip_score", "draws": 1000, "batch": 100}}
    run = kit.curate(tmp_path, kit.make_rows(300), sample=section)
    kit.conserved(run)
    rows = run.table("decisions").to_pylist()
    scores = run.table("scores")["clip_score"].to_pylist()
    subset = np.load(run.folder / "uids.npy")
    assert sum(row["repeats"] for row in rows) == len(subset) == 1000
    for row in filter(lambda row: row["kept"], rows):  # as DataComp's resharder counts: between two binary searches
        uid = np.array([divmod(int(row["uid"], 16), 2**64)], np.dtype("u8,u8"))
        assert np.searchsorted(subset, uid, "right") - np.searchsorted(subset, uid, "left") == row["repeats"]
    for row, score in zip(rows, scores, strict=True):
        assert row["kept"] == (row["repeats"] > 0)
        assert not row["kept"] or not np.isnan(np.float64(score if score is not None else np.nan))
        if row["kept"] or row["rule"] == "sample":
            assert row["probability"] is None and row["draw"] == pytest.approx(1 / (1 + row["repeats"]))
    assert sum(pq.read_table(run.folder / "shards/00000.parquet")["repeats"].to_pylist()) == 1000

    finished = open_finished(str(run.folder))
    found = answer(finished, ["sample.soft_cap.draws=300", "sample.soft_cap.penalty=0"])
    assert answer(finished, []).fact("in_uids") == 1000 and found.fact("in_uids") == 300
    fewer = kit.run_local(change_recipe(finished.recipe, ["sample.soft_cap.draws=300"]), tmp_path / "fewer")
    assert diff_runs(str(run.folder), str(fewer.folder)).repeated > 0
    monkeypatch.setattr(soft_cap, "MAX_ROWS", 100)
    with pytest.raises(
        RunError, match="rows have a score, and one worker must hold all of them; accepted: at most 100"
    ):
        kit.run_local(finished.recipe, tmp_path / "large")
