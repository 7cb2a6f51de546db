"""A balancing scheme as a new class of `curate.decide.draw.schemes` would be."""

import numpy as np

from curate.decide.draw.schemes import Scheme


class ByParity(Scheme):
    """Entries with even ids may have t rows, the others half of that."""

    key = "by_parity"

    def groups(self, entries):
        return np.arange(len(entries.table), dtype=np.int32) % 2

    def limits(self, ts, counts, entries):
        assert len(counts) == len(entries.table) and entries.table.column_names == ["entry", "source", "language"]
        return np.stack([np.asarray(ts), np.maximum(1, np.asarray(ts) // 2)], axis=1)

    def highest(self, counts, entries):
        return 2 * int(np.max(counts, initial=0)) + 1
