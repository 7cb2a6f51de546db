"""A balancing scheme as a new class of `curate.decide.draw.schemes` would be."""

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64
from curate.decide.draw.schemes import Scheme


class ByParity(Scheme):
    """Entries with even ids may have t rows, the others half of that."""

    key = "by_parity"

    def limits(self, t: int, counts: I64, entries: pa.Table) -> I64:
        assert len(counts) == len(entries) and entries.column_names == ["entry", "source", "language"]
        return np.where(np.arange(len(counts)) % 2, np.maximum(1, t // 2), t)

    def highest(self, counts: I64, entries: pa.Table) -> int:
        return 2 * int(np.max(counts, initial=0)) + 1
