"""MetaCLIP's balancing: one limit for all entries."""

import numpy as np
import pyarrow as pa

from curate.decide.schemes.scheme import Scheme
from curate.numeric.arrays import I64


class Metaclip(Scheme):
    """Every entry may have t rows ("Demystifying CLIP Data", arXiv 2309.16671, section 3.3)."""

    key = "metaclip"

    def limits(self, t: int, counts: I64, entries: pa.Table) -> I64:
        """Return t."""
        return np.array([t], np.int64)
