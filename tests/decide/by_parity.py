"""A balancing scheme as a new class of `curate.decide.draw.schemes` would be."""

from collections.abc import Sequence

import numpy as np

from curate.base.numeric.arrays import I32, I64
from curate.decide.draw.schemes import Scheme
from curate.match.unit import Entries


class ByParity(Scheme):
    """Entries with even ids may have t rows, the others half of that."""

    key = "by_parity"

    def groups(self, entries: Entries) -> I32:
        return np.arange(len(entries.table), dtype=np.int32) % 2

    def limits(self, ts: Sequence[int] | I64, counts: I64, entries: Entries) -> I64:
        assert len(counts) == len(entries.table) and entries.table.column_names == ["entry", "source", "language"]
        return np.stack([np.asarray(ts), np.maximum(1, np.asarray(ts) // 2)], axis=1)

    def highest(self, counts: I64, entries: Entries) -> int:
        return 2 * int(np.max(counts, initial=0)) + 1
