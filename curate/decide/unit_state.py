"""The state of a unit during decisions: for each row whether it survives, or what dropped it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import F32, I16, I32, I64, U64, Mask
from curate.base.stages import CODES, KEPT, OTHER_TEXT, SELECTION
from curate.decide.statistics.derived import Fits
from curate.pool.plan import Unit

SURVIVING = CODES[KEPT]


class Duplicates(NamedTuple):
    """Rows that are duplicates of another."""

    rows: I32
    representatives: U64  # [2, rows], the halves of each row's representative's uid
    cosines: F32 | None  # see `schema.DUPLICATE_COSINE`, 0 if a row has none; None: no row has one


class Contaminated(NamedTuple):
    """Rows that are near an evaluation image."""

    rows: I64
    images: pa.Array  # the name of each row's evaluation image


class Texts(NamedTuple):
    """Remaining rows that share their image (`balance.one_per`) with others."""

    rows: I32
    numbers: I32  # number of remaining rows with each row's image, including itself


@dataclass(frozen=True)
class UnitState:
    """A unit's state, two bytes per row."""

    unit: Unit
    verdicts: I16  # for each row SURVIVING, the position of the rule that dropped it, or the code of a stage
    duplicates: Duplicates | None = None
    contaminated: Contaminated | None = None
    derived: Fits = field(default_factory=dict)  # of derived columns, as far as known
    texts: Texts | None = None

    @property
    def surviving(self) -> Mask:
        return np.asarray(self.verdicts == SURVIVING)

    @property
    def eligible(self) -> Mask:
        """The rows that remain before balancing: surviving rows, and other texts of their images (bool[rows])."""
        return np.asarray(self.surviving | (self.verdicts == CODES[OTHER_TEXT]))

    def drop(self, rows: Mask | I32 | I64, code: int) -> Self:
        """Return the state after dropping these rows (a mask, or numbers), if they survive, with a verdict's code."""
        verdicts = self.verdicts.copy()
        verdicts[rows] = code
        return replace(self, verdicts=np.where(self.surviving, verdicts, self.verdicts))


def name_verdicts(verdicts: I16, rules: Sequence[str], selection: str | None = None) -> pa.Array:
    """Return the rule, stage or selection that dropped each row (string[rows]); null if it is kept."""
    names, codes = _names_and_codes(rules, selection)
    index = pc.index_in(pa.array(verdicts, mask=verdicts == SURVIVING), pa.array(codes, pa.int16()), skip_nulls=True)
    return names.take(index)


def read_verdicts(names: pa.ChunkedArray, rules: Sequence[str], selection: str | None = None) -> I16:
    """Return the verdicts (int16[rows]) for names from `name_verdicts`. Raises ValueError for other names."""
    verdict_names, codes = _names_and_codes(rules, selection)
    index = pc.index_in(names, verdict_names, skip_nulls=True)
    if index.null_count != names.null_count:
        raise ValueError("a name is neither a rule nor a stage")
    missing = index.is_null().to_numpy()
    return np.where(missing, np.int16(SURVIVING), np.array(codes, np.int16)[index.fill_null(0).to_numpy()])


def _names_and_codes(rules: Sequence[str], selection: str | None) -> tuple[pa.Array, list[int]]:
    stages = [selection if name == SELECTION and selection else name for name in CODES]
    return pa.array([*rules, *stages], pa.string()), [*range(len(rules)), *CODES.values()]
