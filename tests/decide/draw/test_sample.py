"""A random sample has exactly the N rows with the smallest hashes, so each row is equally likely."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curate.ask.query import asking
from curate.decide.draw.groups import random_keys
from curate.decide.draw.smallest import Keys
from tests import kit
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


def test_probabilities_and_draws(tmp_path):
    pool, rules = kit.make_rows(300), {"words": "words > 2"}
    large, small = (kit.curate(tmp_path / f"{n}", pool, rules=rules, sample={"rows": n}) for n in (120, 40))
    kept = [{row["uid"] for row in run.table("decisions").to_pylist() if row["kept"]} for run in (large, small)]
    assert kept[1] < kept[0] and (large.counts["kept"], small.counts["kept"]) == (120, 40)
    decisions = large.table("decisions").to_pylist()
    left = [row for row in decisions if row["kept"] or row["rule"] == "sample"]
    assert {row["probability"] for row in left} == {120 / len(left)}
    assert all(row["kept"] == (row["draw"] < 1) for row in left)
    assert all(row["draw"] is None and not row["probability"] for row in decisions if row not in left)
    with asking(str(large.folder), "SELECT count(*) FROM survivors") as found:
        assert list(found.rows) == [(len(left),)]
