"""The interface of relations: columns of a row that depend on its embeddings and on the whole pool.

A relation first asks all units for what it needs (`fit`), and is then applied to each unit alone (`apply`). The answers
must not depend on how the pool is split: choose rows by hash, sum integers, and break ties by content. If the table
`related` of all units is current, no unit is asked.
"""

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base import ids, schema
from curate.base.numeric.arrays import F16, I64, U64, whole
from curate.base.numeric.vectors import embedding_matrix
from curate.base.process import process_cache
from curate.pool.plan import Unit
from curate.recipe.relate import OnKept
from curate.run.units import Answer, Combine, SideOutput, Units
from curate.store.layout import FITTED, MODELS
from curate.store.store import RunStore
from curate.store.tables import OpenTables, UnitTables

Function = Callable[..., Any]  # its arguments: rows of a unit or a file, or a `Reading`, and answers


@dataclass(frozen=True)
class EmbeddedRows:
    """The rows of a unit with all embeddings that a relation needs."""

    tables: UnitTables
    rows: I64  # their row numbers in the unit, ascending (int64[n])
    sides: list[F16]  # embeddings of each side, unit length up to rounding (float16[n, dimension])

    @property
    def images(self) -> F16:
        return self.sides[0]

    @cached_property
    def uids(self) -> pa.Array:
        return whole(self.tables.read_uids().take(pa.array(self.rows, pa.int64())))

    def hashes(self, seed: int) -> U64:
        """Return a hash of each row's uid and a seed (uint64[n])."""
        return ids.hash_uids(self.uids, seed)


class Relation(ABC):
    """A relation; it has no state."""

    key: ClassVar[str]  # its key in a recipe's section `relate`
    section: ClassVar[type[OnKept]]  # its section in a recipe
    sides: ClassVar[tuple[str, ...]] = ("image",)  # sides whose embeddings a row must have
    version: ClassVar[int] = 1  # increase it when the code changes the output

    def columns(self, name: str, section: Any) -> tuple[pa.Field, ...]:
        """Return the columns that it adds to table `related`, by default those that its section `gives`."""
        return schema.named_fields(self.section.gives, name)

    def begin(self, asking: "Asking", section: Any) -> Any:
        """Ask all units the first questions of `fit`, which gets the answer as `asking.begun`."""
        return None

    @abstractmethod
    def fit(self, asking: "Asking", section: Any) -> Answer[Any]:
        """Ask all units what it needs, and return the Model for `apply`."""

    @abstractmethod
    def apply(self, model: Mapping[str, npt.NDArray[Any]], section: Any, rows: EmbeddedRows) -> Sequence[pa.Array]:
        """Return its columns for these rows, from the arrays of the model; other rows get nulls."""


@dataclass(frozen=True)
class Reading:
    """The settings of a relation, and its access to the run folder."""

    store: RunStore
    kind: Relation
    name: str  # of the relation in the recipe
    prefix: str  # of its model's columns in `embeddings`
    seed: int  # of the run
    share: float = 1.0  # of the pool in these units: less than 1 if a plan measures a part to estimate the whole
    section: Any = None  # the relation's section in the recipe

    def seed_of(self, purpose: object) -> int:
        return int(ids.digest([self.seed, self.kind.key, self.name, purpose])[:15], 16)

    def read(self, tables: UnitTables) -> EmbeddedRows:
        table = tables.read("embeddings", [f"{self.prefix}{side}" for side in self.kind.sides])
        matrices = list(map(embedding_matrix, table.columns))
        rows = np.flatnonzero(np.logical_and.reduce([matrix.any(axis=1) for matrix in matrices]))
        return EmbeddedRows(tables, rows, [matrix[rows] for matrix in matrices])

    def save(self, **arrays: npt.NDArray[Any]) -> "Model":
        """Write arrays for `apply` to a file whose name is their digest."""
        return self._write(FITTED, arrays)

    def keep(self, **arrays: npt.NDArray[Any]) -> "Model":
        """Save arrays as a part of the run; a single one becomes `models/NAME.npy`, for other programs."""
        return self._write(MODELS, arrays)

    def _write(self, folder: str, arrays: dict[str, npt.NDArray[Any]]) -> "Model":
        data, only = io.BytesIO(), next(iter(arrays.values())) if len(arrays) == 1 else None
        np.savez(data, allow_pickle=False, **arrays) if only is None else np.save(data, only, allow_pickle=False)
        sha256 = hashlib.sha256(data.getvalue()).hexdigest()
        name = self.name if folder == MODELS else f"{self.name}/{sha256[:32]}"
        file = f"{folder}/{name}.{'npz' if only is None else 'npy'}"
        self.store.write_bytes(file, data.getvalue())
        return Model(self.store, self.name, file, sha256, tuple(arrays))


class Model(NamedTuple):
    """Arrays shared by units, in a file of the run folder, so that steps do not carry them."""

    store: RunStore
    relation: str
    file: str
    sha256: str
    names: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        return self.file.startswith(f"{MODELS}/")

    def load(self) -> Mapping[str, npt.NDArray[Any]]:
        def read() -> dict[str, npt.NDArray[Any]]:
            content: Any = np.load(io.BytesIO(self.store.read_bytes(self.file)), allow_pickle=False)
            return {self.names[0]: content} if len(self.names) == 1 else {name: content[name] for name in self.names}

        of_relation = f"model {self.store.url} {self.relation} "
        return process_cache(f"{of_relation}{self.sha256}", read, replaces=of_relation)


@dataclass(frozen=True)
class Asking:
    """Asks units on behalf of a relation, unless all of them have current results."""

    units: Units
    stale: Answer[Any]  # number of units that need it
    reading: Reading
    begun: Any = None  # what `Relation.begin` returned

    def ask(self, name: str, function: Function, *values: Any, combine: Any = None) -> Answer[Any]:
        """Ask each unit for `function(its EmbeddedRows, *values)`, parts of an answer, as in `Units.ask`.

        With `combine` each unit must yield a part, even an empty one, so that there is always something to combine.
        """
        name = f"Relate {self.reading.name}: {name}"
        return self.units.ask(name, self._of_rows(function), self.stale, *values, combine=combine)

    def _of_rows(self, function: Function) -> Callable[..., Iterable[Any]]:
        reading = self.reading  # steps are pickled, and the pipeline cannot be

        def of_rows(tables: OpenTables, unit: Unit, stale: int | None, *values: Any) -> Iterable[Any]:
            return function(reading.read(tables), *values) if stale else ()

        return of_rows

    def gather(self, name: str, function: Function, *values: Any) -> Answer[list[str]]:
        """Gather rows of units in files, for `each`: `function(its EmbeddedRows, *values)` yields numbers and arrays.

        Arrays may have any dtype except objects; those of a file are concatenated.
        """
        name = f"Relate {self.reading.name}: {name}"

        def list_files(stale: int | None, files: Sequence[str]) -> list[str]:
            return (sorted(files) or [""]) if stale else []

        pairs = self.units.pairs(name, self._of_rows(function), self.stale, *values)
        files = self.units.group(f"{name}, put together", pairs, _put_together, self.reading).side_output
        return self.units.get(f"{name}, files", list_files, self.stale, files)

    def each(
        self, name: str, files: Answer[list[str]], function: Function, *values: Any, combine: Combine[Any, Any]
    ) -> Answer[Any]:
        """Combine `function(rows, *values)` over the files of `gather`; without files, rows is None."""
        store, name = self.reading.store, f"Relate {self.reading.name}: {name}"

        def of_file(file: str, *values: Any) -> Any:
            rows = np.load(io.BytesIO(store.read_bytes(file)), allow_pickle=False) if file else None
            return function(rows, *values)

        parts = self.units.each(name, files, of_file, *values)
        return self.units.combine(f"{name}, combined", [parts], combine)

    def get(self, name: str, function: Function, *values: Any) -> Answer[Any]:
        """Return `function(reading, *values)`, computed once, or None."""
        reading = self.reading

        def of_answers(stale: int | None, *values: Any) -> Any:
            return function(reading, *values) if stale else None

        return self.units.get(f"Relate {reading.name}: {name}", of_answers, self.stale, *values)


def _put_together(number: int, parts: Sequence[npt.NDArray[Any]], reading: Reading) -> Iterator[SideOutput]:
    """Write the rows of a file of `Asking.gather`, and yield the file; another attempt writes its own."""
    numbered = replace(reading, name=f"{reading.name}/{number:05d}")
    yield SideOutput(numbered.save(rows=np.concatenate(parts)).file)
