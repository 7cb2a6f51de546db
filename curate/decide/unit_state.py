"""A unit while it is decided: of each row whether it is still in, or what dropped it."""

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
    """Rows that lost to another."""

    rows: I32
    representatives: U64  # [2, rows], the halves of the uid of each one's representative
    cosines: F32 | None  # of each, see `schema.DUPLICATE_COSINE`, 0 where it has none; None: none has


class Contaminated(NamedTuple):
    """Rows that are near an evaluation image."""

    rows: I64
    images: pa.Array  # of each the name of that image


class Texts(NamedTuple):
    """Rows left that have their image (`balance.one_per`) in common with others."""

    rows: I32
    numbers: I32  # of each, how many rows left have its image, itself included


@dataclass(frozen=True)
class UnitState:
    """A unit's state, two bytes a row."""

    unit: Unit
    verdicts: I16  # of each row SURVIVING, the position of the rule that dropped it, or the code of a stage
    duplicates: Duplicates | None = None
    contaminated: Contaminated | None = None
    derived: Fits = field(default_factory=dict)  # of derived columns, as far as they are known
    texts: Texts | None = None

    @property
    def surviving(self) -> Mask:
        return np.asarray(self.verdicts == SURVIVING)

    @property
    def eligible(self) -> Mask:
        """The rows left when balancing begins: those still in, and other texts of their images (bool[rows])."""
        return np.asarray(self.surviving | (self.verdicts == CODES[OTHER_TEXT]))

    def drop(self, rows: Mask | I32 | I64, code: int) -> Self:
        """Return the state with those of these rows (a mask, or numbers) dropped that survive, by a verdict's code."""
        verdicts = self.verdicts.copy()
        verdicts[rows] = code
        return replace(self, verdicts=np.where(self.surviving, verdicts, self.verdicts))


def name_verdicts(verdicts: I16, rules: Sequence[str], selection: str | None = None) -> pa.Array:
    """Return the rule, stage or selection that dropped each row (string[rows]); null where it is kept."""
    names, codes = _names_and_codes(rules, selection)
    index = pc.index_in(pa.array(verdicts, mask=verdicts == SURVIVING), pa.array(codes, pa.int16()), skip_nulls=True)
    return names.take(index)


def read_verdicts(names: pa.ChunkedArray, rules: Sequence[str], selection: str | None = None) -> I16:
    """Return the verdicts (int16[rows]) that `name_verdicts` gave these names. Raises ValueError for any other name."""
    verdict_names, codes = _names_and_codes(rules, selection)
    index = pc.index_in(names, verdict_names, skip_nulls=True)
    if index.null_count != names.null_count:
        raise ValueError("a name is neither a rule nor a stage")
    missing = index.is_null().to_numpy()
    return np.where(missing, np.int16(SURVIVING), np.array(codes, np.int16)[index.fill_null(0).to_numpy()])


def _names_and_codes(rules: Sequence[str], selection: str | None) -> tuple[pa.Array, list[int]]:
    stages = [selection if name == SELECTION and selection else name for name in CODES]
    return pa.array([*rules, *stages], pa.string()), [*range(len(rules)), *CODES.values()]
