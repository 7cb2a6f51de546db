"""Emitting over all units: what shards are given."""

import numpy as np
import pyarrow as pa
import pytest

from curate.decide.dedup import exact
from curate.emit import steps
from curate.emit.layout import Slice
from curate.pool.plan import Unit
from tests.emit.test_settings import settings


class Stopped(Exception):
    pass


@pytest.mark.parametrize("names", [0, 5, 3000])
def test_repeated_names_ascend_in_whatever_order_buckets_come(names, tmp_path, monkeypatch):
    rng = np.random.default_rng(names)
    hashes = rng.integers(0, 2**64, names, np.uint64)
    buckets = [exact.repeated([part, part]) for part in exact.split_buckets(hashes, 16)]
    got = []

    def emit_shard(settings, shard, hashes):
        got.append(hashes)
        raise Stopped

    monkeypatch.setattr(steps, "emit_shard", emit_shard)
    shuffled = [buckets[i] for i in rng.permutation(16)]
    with pytest.raises(Stopped):
        list(steps._write(0, [Slice(Unit(0, "pool", ()), 0, 1)], shuffled, pa.schema([]), settings(tmp_path)))
    assert np.array_equal(got[0], np.unique(hashes))
