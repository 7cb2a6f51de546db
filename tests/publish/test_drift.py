"""Drift of whole runs: the same whatever the sharding, from the rows with the smallest hashes, and large where it should be."""

import numpy as np
import pytest

from curate.publish import drift
from curate.publish.drift import DriftSample, Group, measure_drifts, merge
from tests import kit
from tests.kit.clips import write_model
from tests.kit.written_runs import run_query


def sample(n, seed, at=0.0):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, 8)) + at).astype(np.float16)
    return DriftSample(np.sort(rng.integers(0, 2**63, n, np.uint64)), rows)


def test_merging_takes_the_smallest_hashes_in_any_order(monkeypatch):
    monkeypatch.setattr(drift, "SAMPLED", 20)
    parts = [sample(n, seed) for seed, n in enumerate((5, 0, 70, 30))]
    whole = merge(parts)
    hashes = np.sort(np.concatenate([part.hashes for part in parts]))
    assert len(whole.rows) == 40 and (whole.hashes == hashes[:40]).all()
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
        again = merge([merge([parts[i]]) for i in order])
        assert (again.hashes == whole.hashes).all() and (again.rows == whole.rows).all()


def test_what_is_kept_at_random_has_not_drifted():
    pool, far = sample(4000, 1), sample(300, 2, at=0.5)
    kept = DriftSample(pool.hashes[::8], pool.rows[::8])
    groups = [Group("a", "clip", "image", kept) for kept in (False, True)]
    same, moved = (measure_drifts(dict(zip(groups, (pool, part), strict=True)))[0] for part in (kept, far))
    assert same.distance < 1.5 * same.unchanged and moved.distance > 3 * moved.unchanged
    assert abs(moved.distance - 0.5) < 0.1  # a shift by 0.5 in each of 8 dimensions, seen from a direction
    assert measure_drifts(dict(zip(groups, (pool, sample(0, 0)), strict=True))) == []


@pytest.mark.slow
def test_drift_of_runs_does_not_depend_on_the_sharding(tmp_path):
    model = write_model(tmp_path / "m")
    samples = kit.make_samples(60)
    answers = []
    for shards in (1, 4):
        path = kit.write_tars(tmp_path / f"tars{shards}", samples, shards)
        measure = {"clip": {"model": model, "embeddings": True, "batch": 7}}
        asked = kit.recipe_of(path, measure=measure, rules={"best": {"top": 0.3, "of": "clip_score"}})
        run = kit.run_local if shards == 1 else kit.run_beam
        done = run(asked, tmp_path / f"out{shards}")
        answers.append(run_query(str(done.folder), "drift").rows)
    one, four = answers
    assert [row[:5] for row in one] == [row[:5] for row in four] and [row[2] for row in one] == ["image", "text"]
    assert np.allclose([row[5:] for row in one], [row[5:] for row in four], atol=1e-4)
    assert one[0][5] > 0 and one[0][4] < one[0][3]
