"""Shards of exactly N rows, in the order of units."""

import json
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.emit.layout import Layout, Slice
from curate.pool.plan import Unit
from tests.emit.layouts import lay_out
from tests.emit.written import emitted, names_of, pairs, parquets, sidecars, tars, write_tar


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 25))
def test_shards_are_full_but_the_last_and_keep_the_order(counts, rows_per_shard):
    units = [(Unit(i, "s", ()), count) for i, count in enumerate(counts)]
    kept = {unit.index: count for unit, count in units if count}
    shards = lay_out([unit for unit, _ in reversed(units)], Layout.of(kept, rows_per_shard))
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert [shard.rows for shard in shards[:-1]] == [rows_per_shard] * (len(shards) - 1)
    assert not shards or 1 <= shards[-1].rows <= rows_per_shard
    laid = [(part.unit.index, part.first + i) for shard in shards for part in shard.slices for i in range(part.count)]
    assert laid == [(unit.index, i) for unit, count in units for i in range(count)]
    assert all(isinstance(part, Slice) and part.count for shard in shards for part in shard.slices)


@pytest.mark.parametrize("rows_per_shard", [1, 5, 100])
def test_rows_per_shard_and_order(tmp_path, rows_per_shard):
    paths = [write_tar(tmp_path / f"{n}.tar", pairs(*(f"{n}{i}" for i in range(5)), first=10 * n)) for n in range(3)]
    ran = emitted(tmp_path / "run", tars(*paths), rows_per_shard, rules={"chosen": "right(key, 1) <> '3'"})
    kept = [f"{n}{i}" for n in range(3) for i in (0, 1, 2, 4)]
    sizes = json.loads((ran.folder / "shards/sizes.json").read_text())
    assert list(sizes) == [f"{k:05d}.tar" for k in range(-(-12 // rows_per_shard))]
    assert list(sizes.values()) == [len(kept[k : k + rows_per_shard]) for k in range(0, 12, rows_per_shard)]
    assert names_of(ran) == kept and sidecars(ran)["key"].to_pylist() == kept
    for k, (name, rows) in enumerate(sizes.items()):
        with tarfile.open(ran.folder / "shards" / name) as tar:
            texts = [info.name for info in tar if info.name.endswith(".txt")]
        assert texts == [f"{key}.txt" for key in kept[k * rows_per_shard :][:rows]]
        assert pq.read_metadata(ran.folder / "shards" / name.replace("tar", "parquet")).num_rows == rows


def test_nothing_kept_gives_no_shards(tmp_path):
    path = write_tar(tmp_path / "p.tar", pairs("a", "b"))
    for name, sources in (("tar", tars(path)), ("text", parquets(tmp_path / "q", pa.table({"text": ["a", "b"]})))):
        ran = emitted(tmp_path / name, sources, rules={"none": "words > 99"})
        assert sorted(os.listdir(ran.folder / "shards")) == ["sizes.json"]
        assert json.loads((ran.folder / "shards/sizes.json").read_text()) == {}
        assert len(np.load(ran.folder / "uids.npy")) == 0 and ran.counts == {"none": 2}
