"""MetaCLIP's balancing: one limit for all entries."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate.base.numeric.arrays import I64
from curate.decide.draw.schemes.scheme import Scheme


class Metaclip(Scheme):
    """Every entry may have t rows ("Demystifying CLIP Data", arXiv 2309.16671, section 3.3)."""

    key = "metaclip"

    def limits(self, t: int, counts: I64, entries: pa.Table) -> I64:
        """Return t."""
        return np.array([t], np.int64)

    def stack(self, ts: Sequence[int] | I64, counts: I64, entries: pa.Table) -> I64:
        """Return ts, without a call for each: units ask for some 64 at a time."""
        return np.asarray(ts, np.int64)[:, np.newaxis]
