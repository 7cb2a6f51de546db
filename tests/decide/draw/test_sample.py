"""A random sample: exactly N rows of any pool, those with the smallest hashes, each as likely as another."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.explain import explain_sample
from curate.ask.query import asking
from curate.ask.whatif.answer import answer
from curate.ask.whatif.estimate import estimate
from curate.ask.whatif.surviving import open_finished
from curate.ask.whatif.sweep import sweep
from curate.ask.whatif.swept_number import parse_swept_number
from curate.cli.summary import summary
from curate.decide.draw.groups import random_keys
from curate.decide.draw.smallest import Keys
from pipelines.prepare import prepare
from tests import kit
from tests.ask.whatif.asked import whatif
from tests.decide.draw.cuts import find

UIDS = st.lists(st.integers(0, 2**128 - 1) | st.integers(0, 50), unique=True, max_size=80)


def take(parts, rows):
    return find([keys_of([], 0), *parts], np.array([rows]))


def keys_of(uids, seed):
    uid_array = pa.array([f"{uid:032x}" for uid in uids], pa.string())
    return random_keys(uid_array, seed, np.zeros(len(uids), np.int64))


def taken(cut, keys):
    return list((cut.draws(keys, keys.values[:, 0] / 2.0**64) < 1).tolist())


@given(UIDS, st.integers(1, 90), st.integers(0, 2**63 - 1), st.integers(1, 4))
def test_exactly_so_many_whatever_the_parts(uids, rows, seed, parts):
    keys = keys_of(uids, seed)
    hashes = dict(zip(uids, keys.values[:, 0].tolist(), strict=True))
    expected = set(sorted(uids, key=lambda uid: (hashes[uid], uid))[:rows])
    pieces = [uids[i::parts] for i in range(parts)]
    cut = take([keys_of(piece, seed) for piece in pieces], rows)
    kept = {
        uid for piece in pieces for uid, is_in in zip(piece, taken(cut, keys_of(piece, seed)), strict=True) if is_in
    }
    assert kept == expected and len(kept) == min(rows, len(uids))
    assert cut.shares[0] == (len(kept) / len(uids) if uids else 0)


def test_rows_of_equal_hashes_are_told_apart():
    same = np.full(6, 7, np.uint64)
    values = np.stack([same, np.array([0, 0, 0, 1, 1, 1], np.uint64), np.array([3, 1, 2, 3, 1, 2], np.uint64)], axis=1)
    keys = Keys(values, np.zeros(6, np.int64))
    assert taken(take([keys], 4), keys) == [True, True, True, False, True, False]


def test_each_row_is_as_likely_and_seeds_differ():
    uids = list(range(2000))
    kept = np.mean([taken(take([keys := keys_of(uids, seed)], 500), keys) for seed in range(200)], axis=0)
    assert abs(kept.mean() - 0.25) < 1e-12 and kept.min() > 0.1 and kept.max() < 0.4


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on Beam, one in this process, and both with fewer rows."""
    folder = tmp_path_factory.mktemp("sample")
    path = kit.write_parquets(folder / "pool", kit.make_rows(300), 3, 100)
    recipe = kit.recipe_of(path, "parquet", rules={"words": "words > 2"}, sample={"rows": 120})
    fewer = kit.recipe_of(path, "parquet", rules={"words": "words > 2"}, sample={"rows": 40})
    local = [kit.run_local(one, folder / f"local{i}") for i, one in enumerate((recipe, fewer))]
    return [kit.run_beam(recipe, folder / "beam"), *local]


def test_beam_takes_the_same_rows_and_smaller_samples_are_among_them(runs):
    beam, local, fewer = runs
    assert beam.verdicts == local.verdicts and beam.kept == local.kept
    assert beam.counts["kept"] == 120 and fewer.counts["kept"] == 40
    kept = [
        set(run.table("decisions").filter(run.table("decisions")["kept"])["uid"].to_pylist()) for run in (local, fewer)
    ]
    assert kept[1] < kept[0]
    kit.conserved(beam)


def test_probabilities_and_draws(runs):
    decisions = runs[0].table("decisions").to_pylist()
    left = [row for row in decisions if row["kept"] or row["rule"] == "sample"]
    assert {row["probability"] for row in left} == {120 / len(left)}
    assert all(row["kept"] == (row["draw"] < 1) for row in left)
    assert all(row["draw"] is None and not row["probability"] for row in decisions if row not in left)
    with asking(str(runs[0].folder), "SELECT count(*) FROM survivors") as found:
        assert list(found.rows) == [(len(left),)]
    which = f"among the 120 rows that `sample` drew of {len(left)} at random"
    for kept, verdict in ((True, f"verdict: kept: {which}"), (False, f"verdict: dropped by sample, not {which}")):
        page = str(explain_sample(str(runs[0].folder), next(row["uid"] for row in left if row["kept"] == kept)))
        assert verdict in " ".join(page.split())


def test_too_few_rows_are_named(runs, tmp_path):
    """In the run's summary and by `plan`; not where there are as many as wanted."""
    path = str(runs[1].folder.parent / "pool/*.parquet")
    recipe = kit.recipe_of(path, "parquet", rules={"words": "words > 2"}, sample={"rows": 5000})
    few = kit.run_local(recipe, tmp_path / "few")
    line = f"sample: 5,000 wanted, {few.counts['kept']} left"
    assert few.run["selection"]["summary"] == [line] and line in summary(str(few.folder), 1.0)
    assert not runs[1].run["selection"].get("summary")
    prepared = prepare(recipe, str(tmp_path / "out"))
    assert estimate(prepared.context, prepared.plan.units, None).chosen == line


def test_whatif_and_sweeps_know_the_size(runs):
    folder = str(runs[0].folder)
    found = whatif(folder, [])
    funnel = {row["rule"]: row["whatif"] for row in found.funnel.to_pylist()}
    assert found.expected == 120 and found.error == 0 and funnel["sample"] == -runs[0].counts["sample"]
    assert whatif(folder, ["sample=null"]).expected == 120 + runs[0].counts["sample"]
    run = open_finished(folder)
    assert [point.expected for point in sweep(run, [], parse_swept_number("sample.rows=10,50"))] == [10, 50]
    assert answer(run, ["rules.words=words > 3", "sample.rows=7"]).expected == 7
    changed = answer(run, ["rules.words=words > 3"])
    assert changed.sources.select(["run_expected", "whatif", "change"]).to_pylist() == [
        {"run_expected": 120, "whatif": 120, "change": 0}
    ]
