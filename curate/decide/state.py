"""A unit on its way through the decision: which rows are still in, and what dropped the others."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.pool.plan import Unit
from curate.schema import CODES, KEPT

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

ALIVE = CODES[KEPT]


@dataclass(frozen=True)
class UnitState:
    """A unit's state, two bytes a row.

    Attributes:
        unit: the unit.
        verdicts: int16[rows]: ALIVE, the position of the rule that dropped the row, or the code of a stage.
        duplicates: after deduplication, the rows that lost to another (int32).
        representatives: of each of them, the halves of the uid of the row that represents it (uint64[2, duplicates]).
        contaminated: the rows that are near an evaluation image (int64).
        evaluated: of each of them, the name of that image (string).
    """

    unit: Unit
    verdicts: npt.NDArray[np.int16]
    duplicates: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    representatives: U64 = field(default_factory=lambda: np.zeros((2, 0), np.uint64))
    contaminated: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    evaluated: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))

    @property
    def alive(self) -> Mask:
        """The rows still in (bool[rows])."""
        return np.asarray(self.verdicts == ALIVE)

    def drop(self, rows: Mask, code: int) -> "UnitState":
        """Return the state with these rows dropped, where they were alive; by the position of a rule, or a stage's code."""
        return replace(self, verdicts=np.where(rows & self.alive, np.int16(code), self.verdicts))


@dataclass(frozen=True)
class UnitResult:
    """What a unit reports after deciding.

    Attributes:
        unit: the unit.
        kept: how many rows are kept.
        entries: int64[2, n] or None: per entry the expected rows in fixed point (2⁻³²), and the kept rows.
    """

    unit: Unit
    kept: int
    entries: I64 | None
