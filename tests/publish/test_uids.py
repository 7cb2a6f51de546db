"""uids.npy is sorted, complete and of DataComp's type, in however many buckets it was sorted."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pool.plan import Unit
from curate.publish.uids import PAIR, sort_pairs, sort_uids, write_uids
from curate.run.in_process import InProcessUnits
from curate.store.layout import table_file
from curate.store.store import RunStore
from curate.store.tables import OpenTables


def written(folder, units, buckets=1):
    """uids.npy of a run that has only decided these rows: (uid, kept)."""
    store = RunStore(str(folder))
    for index, rows in enumerate(units):
        uids, kept = [uid for uid, _ in rows], [is_kept for _, is_kept in rows]
        table = pa.table({"uid": pa.array(uids, pa.string()), "kept": pa.array(kept, pa.bool_())})
        store.write_parquet(table_file("decisions", index), table)
    context = SimpleNamespace(open_tables=lambda unit: OpenTables(store, unit.index))
    asked = InProcessUnits([Unit(index, "pool", ()) for index in range(len(units))], context)  # type: ignore[arg-type]
    write_uids(store, asked.value(sort_uids(asked, store, False, buckets)))
    return np.asarray(np.load(folder / "uids.npy", mmap_mode="r", allow_pickle=False))


def as_hex(pairs):
    return [f"{int(high):016x}{int(low):016x}" for high, low in pairs]


def drawn(seed, count, keep=0.5):
    rng = np.random.default_rng(seed)
    return [(rng.bytes(16).hex(), bool(rng.random() < keep)) for _ in range(count)]


EXTREME = [
    ("f" * 32, True), ("0" * 32, True), (None, False), ("0" * 16 + "f" * 16, True), ("8" + "0" * 31, True),
    ("0" * 15 + "1" + "0" * 16, True), ("7" + "f" * 31, True), ("3" + "0" * 31, False),
]  # fmt: skip


@pytest.mark.parametrize("buckets", [2, 7, 100])
def test_whatever_the_buckets_the_file_is_the_same(tmp_path, buckets):
    units = [drawn(1, 60), EXTREME, [], drawn(2, 40, 0.0), drawn(3, 40, 1.0)]
    kept = sorted(uid for rows in units for uid, is_kept in rows if is_kept and uid)
    whole = written(tmp_path / "whole", units)
    found = written(tmp_path / "run", units, buckets)
    assert found.dtype == PAIR == np.dtype("u8,u8") and found.dtype.str == whole.dtype.str
    assert as_hex(found) == kept
    assert (tmp_path / "run/uids.npy").read_bytes() == (tmp_path / "whole/uids.npy").read_bytes()


few = st.sampled_from([0, 1, 2**63, 2**64 - 1])


@given(st.lists(st.tuples(few | st.integers(0, 2**64 - 1), few | st.integers(0, 2**64 - 1)), max_size=30))
def test_pairs_are_sorted_as_numpy_sorts_them(pairs):
    """Also where high halves, or all of some uids, are alike."""
    array = np.array(pairs, PAIR)
    assert sort_pairs(array).tobytes() == np.sort(array, order=("f0", "f1")).tobytes()
    assert array.tolist() == pairs


@pytest.mark.parametrize("units", [[], [[]], [[("a" * 32, False)], [(None, False)]]])
def test_nothing_kept_is_an_empty_array(tmp_path, units):
    found = written(tmp_path, units)
    assert found.shape == (0,) and found.dtype == PAIR
