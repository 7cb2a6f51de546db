"""Deduplication in bucketed passes against dictionaries, row by row."""

import hashlib
import math
import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.base import ids
from curate.decide.dedup import exact

UIDS = [f"{7 * i % 5:016x}{i // 2:016x}" for i in range(12)]  # halves repeat, and order them differently
SHAS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(5)]
TYPES = (pa.string(), pa.string(), pa.uint64())


@dataclass(frozen=True)
class Row:
    uid: str
    sha256: str | None
    phash: int | None
    content: int
    prefer: float | None

    @property
    def keys(self):
        return (self.uid, self.sha256, self.phash)


def naive(rows, passes):
    """The uid that each row is a duplicate of, pass by pass over all rows; position decides last."""

    def rank(i):
        row = rows[i]
        return (math.inf if row.prefer is None else -row.prefer, row.uid, row.content, i)

    beaten_by = {}
    for k in range(passes):
        groups = {}
        for i, row in enumerate(rows):
            if i not in beaten_by and row.keys[k] is not None:
                groups.setdefault(row.keys[k], []).append(i)
        for group in groups.values():
            best = min(group, key=rank)
            beaten_by.update({i: best for i in group if i != best})

    def survivor(i):
        return survivor(beaten_by[i]) if i in beaten_by else i

    return [rows[survivor(i)].uid if i in beaten_by else None for i in range(len(rows))]


def columns_of(rows, passes):
    return [pa.array([row.keys[k] for row in rows], kind) for k, kind in enumerate(TYPES[:passes])]


def decisive(rows):
    prefer = pa.array([row.prefer for row in rows], pa.float32())
    content = np.array([row.content for row in rows], np.uint64)
    return content, exact.preferences(prefer) if prefer.null_count < len(rows) else None


def distributed(rows, passes, n_units, n_buckets):
    """The two phases as workers run them: a unit knows its rows, and a bucket knows its keys, in any order."""
    shuffle = random.Random(n_units * 1000 + n_buckets)
    units = [(number, part) for number, part in enumerate(np.array_split(np.arange(len(rows)), n_units))]
    shuffle.shuffle(units)
    columns = {number: columns_of([rows[i] for i in part], passes) for number, part in units}
    alive = {number: np.ones(len(part), bool) for number, part in units}

    found = []
    for k in range(passes):
        split = [exact.split_buckets(exact.key_hashes(columns[n][k], alive[n]), n_buckets) for n, _ in units]
        found.append(np.concatenate([exact.repeated(unit[b] for unit in split) for b in range(n_buckets)]))
        assert (np.diff(found[k].astype(object)) > 0).all()

    records = []
    for number, part in units:
        chosen = exact.candidates(columns[number], alive[number], found)
        taken = [column.take(pa.array(chosen)) for column in columns[number]]
        content, prefer = decisive([rows[i] for i in part]) if len(part) else (np.zeros(0, np.uint64), None)
        if prefer is not None:
            prefer = prefer[chosen]
        records.append(exact.make_records(number, chosen, taken[0], taken, content[chosen], prefer))
    for k in range(passes):
        by_bucket = {}
        for some in records:
            for bucket in set(exact.buckets_for(some, k, n_buckets).tolist()):
                by_bucket.setdefault(bucket, []).append(some[exact.buckets_for(some, k, n_buckets) == bucket])
        groups = list(by_bucket.values())
        shuffle.shuffle(groups)
        records = [exact.resolve(np.concatenate(shuffle.sample(group, len(group))), k) for group in groups]

    out = [None] * len(rows)
    parts = dict(units)
    for some in records:
        lost = some[some["dead"]]
        uids = ids.hex_uids(lost["rep_hi"], lost["rep_lo"]).to_pylist()
        for unit, row, uid in zip(lost["unit"], lost["row"], uids, strict=True):
            out[parts[unit][row]] = uid
    return out


def pools(content, prefer):
    """Small alphabets, so that chains across passes are common."""
    phash = st.none() | st.integers(0, 3) | st.just((1 << 64) - 1)
    row = st.builds(Row, st.sampled_from(UIDS), st.none() | st.sampled_from(SHAS), phash, content, prefer)
    return st.lists(row, max_size=30)


SCORES = st.none() | st.sampled_from([-1.5, -0.0, 0.0, 0.25, math.inf])
POOLS = st.sampled_from([st.none(), SCORES]).flatmap(lambda prefer: pools(st.integers(0, 2), prefer))

# b beats a by sha256, then c beats b by phash, then d, of another uid and image, stays apart.
CHAIN = [(1, 0, 7, 1.0), (2, 0, 8, 2.0), (3, 1, 8, 3.0), (4, 2, 7, 0.0)]
CHAIN = [Row(UIDS[uid], SHAS[sha], phash, 0, prefer) for uid, sha, phash, prefer in CHAIN]


@pytest.mark.thorough
@given(POOLS, st.integers(1, 3), st.sampled_from([1, 3, 9]), st.sampled_from([1, 2, 8]))
@example(CHAIN, 3, 7, 64)
@settings(max_examples=60)
def test_distributed_is_naive(rows, passes, n_units, n_buckets):
    assert distributed(rows, passes, n_units, n_buckets) == naive(rows, passes)


def random_pool(size):
    """Rows whose content follows from their other fields, like a real hash of content, so that position decides nothing."""
    rng, rows = random.Random(size), []
    for _ in range(size):
        uid, sha = f"{rng.randrange(size):032x}", rng.choice([None, *SHAS, f"{rng.randrange(size):064x}"])
        phash, score = rng.choice([None, rng.randrange(size)]), rng.choice([None, float(rng.randrange(9))])
        rows.append(Row(uid, sha, phash, ids.hash64(f"{uid}{sha}{phash}{score}"), score))
    return rows


def test_colliding_hashes_do_no_harm(monkeypatch):
    rows = random_pool(300)
    expected = naive(rows, 3)
    assert 50 < sum(uid is not None for uid in expected) < 250
    monkeypatch.setattr(exact, "_fold", lambda hi, lo: (lo & np.uint64(1)) << np.uint64(63))
    assert distributed(rows, 3, 7, 8) == expected


HEX = "0123456789abcdef" * 4
STRINGS = [
    "", "a", "é", HEX, HEX[:32], HEX[:31], HEX[:33], HEX[:63], HEX[:-1] + "e", HEX[:31] + "e", HEX.upper(), HEX[:32].upper(),
    HEX[:31] + "g", HEX[:31] + "/", HEX[:31] + ":", HEX[:31] + "`", "0" * 32, "0" * 64, HEX[:32] + "0" * 32, "é" * 16, "é" * 32,
]  # fmt: skip


def test_string_keys_are_equal_only_for_equal_strings():
    assert len(set(STRINGS)) == len(STRINGS)
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        hi, lo, present = exact.pass_keys(pa.array(["x", None, *STRINGS, None], kind)[1:])
        assert present.tolist() == [False, *[True] * len(STRINGS), False]
        pairs = set(zip(hi[present].tolist(), lo[present].tolist(), strict=True))
        assert len(pairs) == len(set(lo[present].tolist())) == len(STRINGS)
        alone = [exact.pass_keys(pa.array([text], kind)) for text in STRINGS]
        assert [(h[0], v[0]) for h, v, _ in alone] == list(zip(hi[present], lo[present], strict=True))


def test_only_repeated_rows_are_candidates():
    """Phase 2 handles only keys that repeat among the rows that are left."""
    column = pa.array([UIDS[0], UIDS[1], UIDS[0], None, UIDS[2], UIDS[2], UIDS[3]])
    alive = np.array([True, True, True, True, True, False, True])
    found = exact.repeated([exact.key_hashes(column, alive)])
    assert exact.candidates([column], alive, [found]).tolist() == [0, 2]
    assert len(exact.key_hashes(column, alive)) == 5
    assert exact.candidates([column], alive, [np.zeros(0, np.uint64)]).tolist() == []


def test_content_tells_images_and_captions_apart():
    got = exact.content_hashes(pa.array(["ab", "a", None, "ab"]), pa.array(["c", "bc", "abc", "c"]))
    assert len(set(got.tolist())) == 3 and got[0] == got[3]


def test_number_keys():
    for column in (pa.array([3, None, 3, 4]), pa.array([True, None, True, False]), pa.array([0.0, None, -0.0, 1.0])):
        _, lo, present = exact.pass_keys(column)
        assert present.tolist() == [True, False, True, True] and lo[0] == lo[2] != lo[3]
    with pytest.raises(TypeError, match="accepted"):
        exact.pass_keys(pa.array([[1]]))


def test_preferences_put_null_last():
    got = exact.preferences(pa.array([None, -math.inf, math.nan, 0.5, math.inf]))
    assert got[0] == got[2] == 0 and (np.diff(got[[0, 1, 3, 4]].astype(object)) > 0).all()
    top = (1 << 63) - 1
    got = exact.preferences(pa.array([None, -top - 1, top - 2, top - 1, top]))
    assert got[0] < got[1] < got[2] < got[3] == got[4]
    assert (exact.preferences(pa.array([False, None])) == [1, 0]).all()


def test_the_cosine_is_of_the_pass_that_a_row_lost():
    """The passes are by uid, and two by cosine: row 4 loses the first pass, rows 1 and 2 lose the second, and row 3 the third."""
    uids = pa.array(["0" * 31 + digit for digit in "12343"])
    near, other = pa.array([7, 7, 7, 9, 9], pa.uint64()), pa.array([5, 6, 6, 5, 6], pa.uint64())
    cosines = {1: np.array([0.9, 0.8, 0.9, 0, 0], np.float32), 2: np.array([0.99, 0.7, 0.7, 0.99, 0.7], np.float32)}
    columns = [uids, near, other]
    records = exact.make_records(0, np.arange(5), uids, columns, np.arange(5, dtype=np.uint64), None)
    for number, values in cosines.items():
        records["cosines"][:, number] = values
    for i in range(3):
        records = exact.resolve(records, i)
    assert records["dead"].tolist() == [False, True, True, True, True]
    assert records["cosine"].tolist() == pytest.approx([0, 0.8, 0.9, 0.99, 0])
    assert exact.largest_groups(records) == [(5, "0" * 31 + "1")]


def test_the_largest_groups_of_a_bucket():
    uids = pa.array([f"{i:032x}" for i in range(100)])
    keys = pa.array([i % 30 if i < 90 else 3 for i in range(100)], pa.uint64())
    records = exact.make_records(0, np.arange(100), uids, [keys], np.zeros(100, np.uint64), None)
    found = exact.largest_groups(exact.resolve(records, 0))
    assert len(found) == 20 and found[:2] == [(13, f"{3:032x}"), (3, f"{0:032x}")]
    assert sorted(found, key=lambda item: (-item[0], item[1])) == found
    assert exact.largest_groups(records[:0]) == []
