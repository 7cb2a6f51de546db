"""A unit on its way through the decision: which rows are still in, and what dropped the others."""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa

from curate.numeric.arrays import I16, I32, I64, U64, Mask
from curate.pool.plan import Unit
from curate.schema import CODES, KEPT

ALIVE = CODES[KEPT]


@dataclass(frozen=True)
class UnitState:
    """A unit's state, two bytes a row."""

    unit: Unit
    verdicts: I16  # of each row ALIVE, the position of the rule that dropped it, or the code of a stage
    # Rows that lost to another, and of each the halves of the uid of the row that represents it (uint64[2, duplicates]).
    duplicates: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    representatives: U64 = field(default_factory=lambda: np.zeros((2, 0), np.uint64))
    # Rows that are near an evaluation image, and of each the name of that image.
    contaminated: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    evaluated: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))

    @property
    def alive(self) -> Mask:
        """The rows still in (bool[rows])."""
        return np.asarray(self.verdicts == ALIVE)

    def drop(self, rows: Mask, code: int) -> Self:
        """Return the state with these rows dropped, where they were alive; by the position of a rule, or a stage's code."""
        return replace(self, verdicts=np.where(rows & self.alive, np.int16(code), self.verdicts))
