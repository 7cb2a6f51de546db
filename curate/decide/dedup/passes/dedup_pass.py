"""The interface of deduplication passes. In a pass, rows with equal keys are a group, of which one row stays.

A pass by equality reads keys from a unit's tables. A pass by nearness compares rows of the whole pool: each unit's rows
are split into buckets so that near rows share one, near pairs are searched within buckets, and the connected components
of all pairs are groups, whose labels are the keys. A single process treats all rows as those of one unit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate.base.numeric.arrays import F32, I64, U64, Mask
from curate.base.process import in_threads
from curate.decide.dedup.groups import Groups, row_ids, row_keys
from curate.recipe.measure import Measure
from curate.recipe.section import Section
from curate.store.tables import UnitTables

_BUCKET = 1 << 20  # about this many rows per bucket in a single process
Part = tuple[npt.NDArray[Any], ...]  # of a bucket: arrays of the same length, in the same order from all units


@dataclass(frozen=True)
class KeyPass:
    """A pass by equality, by default of a column of `samples` or `scores`."""

    key: str  # its name in `dedup.by`
    needs_images: bool = False  # whether the pool must have images

    def check(self, measure: Measure) -> None:
        """Check that the recipe measures the columns for keys. Raises ValueError."""

    def keys(self, tables: UnitTables) -> pa.Array:
        """Return each row's key (string, integer, float or bool); the pass ignores rows whose key is null."""
        return tables.read_measured([self.key])[self.key].combine_chunks()


class Nearness(ABC):
    """A pass by nearness.

    The values of rows are an array whose first dimension is the rows. If units need shared information before they
    split their rows, this is the *plan*, which is made in `rounds`. Each round surveys every unit with the plan so far
    (None at first), and makes a new plan from the surveys. Edges join nodes: rows (see `groups.row_ids`), or other
    uint64 numbers.
    """

    rounds: ClassVar[int] = 0
    encoder: str | None = None  # the model whose image embeddings are compared, if any

    @abstractmethod
    def read(self, tables: UnitTables, surviving: Mask) -> tuple[I64, Any]:
        """Return the surviving (bool[rows]) rows that have a value (int64, ascending), and their values."""

    def nodes(self, unit: int, rows: I64, values: Any) -> U64:
        """Return the node of each row (uint64[n])."""
        return row_ids(unit, rows)

    def survey(self, nodes: U64, values: Any, plan: Any) -> Any:
        """Return a unit's survey for the next plan; by default, without rounds, nothing."""
        return None

    def plan(self, plan: Any, surveys: list[Any]) -> Any:
        """Return the next plan from the surveys of all units, in any order; by default, without rounds, the same."""
        return plan

    @abstractmethod
    def split(self, nodes: U64, values: Any, plan: Any, n_buckets: int) -> Iterator[tuple[Hashable, Part]]:
        """Yield a unit's rows by bucket, each bucket once; near rows of all units must share a bucket.

        A row may be in several buckets.
        """

    @abstractmethod
    def groups(self, bucket: Any, part: Part) -> Groups:
        """Return the groups formed by the near pairs of a bucket, with the bucket's part of `Groups.recall`."""

    def keys(self, tables: UnitTables, groups: Groups) -> pa.Array:
        """Return the label of each row's group (uint64[rows]); null without a group."""
        return row_keys(tables.unit, tables.rows(), groups)

    def cosines(self, tables: UnitTables, groups: Groups) -> F32 | None:
        """Return `Groups.nearest` of each row (float32[rows]), 0 without a group; None if groups have none."""
        return None

    def search(self, nodes: U64, values: Any) -> Groups:
        """Return the groups over all rows in one process, as if they were one unit. `values` may be in a file."""
        plan = None
        for _ in range(self.rounds):
            plan = self.plan(plan, [self.survey(nodes, values, plan)])
        buckets = self.split(nodes, values, plan, 1 + len(nodes) // _BUCKET)
        return Groups.join(in_threads(lambda bucket: self.groups(*bucket), buckets))


class ImageNearness(Nearness):
    """A pass by nearness of images, which can also compare rows with an evaluation set."""

    @abstractmethod
    def nearest(self, values: Any, evaluation: pa.Table) -> I64:
        """Return for each value the index of the nearest evaluation image, -1 if none is near (int64[n])."""


@dataclass(frozen=True)
class NearnessKind:
    """A kind of nearness; `check` and `check_against` raise ValueError."""

    key: str  # its name in a pass of `dedup.by`
    section: type[Section]  # its section in the recipe
    form: str  # an example of the section for messages
    # Makes the pass from a section, the recipe's `measure`, and the pool's rows, if known from footers
    build: Callable[[Any, Measure, int | None], Nearness]
    # Check that the recipe measures what is needed, for rows of the pool and for images of an evaluation set
    check: Callable[[Any, Measure], None] = lambda section, measure: None
    check_against: Callable[[Any, Measure], None] = lambda section, measure: None
    compares_images: bool = False  # whether the pass is an ImageNearness, which `dedup.against` needs
    has_cosines: bool = False  # whether its groups have `nearest`; then `decisions` has `schema.DUPLICATE_COSINE`


def join_parts(parts: Iterable[Part]) -> Part:
    """Concatenate the parts of a bucket."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
