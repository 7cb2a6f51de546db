"""What a deduplication pass is. In a pass, rows with equal keys are a group, of which one row stays (see `dedup`).

A pass by equality reads keys from a unit's tables. A pass by nearness compares rows of the whole pool: each unit's rows
are split into buckets so that near rows share one, near pairs are searched within buckets, and the connected components
of all pairs are groups, whose labels are the keys. One process treats all rows as those of one unit.
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

_BUCKET = 1 << 20  # rows of a bucket, about, where one process has them all
Part = tuple[npt.NDArray[Any], ...]  # of a bucket: arrays of one length, the same ones from all units


@dataclass(frozen=True)
class KeyPass:
    """A pass by equality, by default of a column of `samples` or `scores`."""

    key: str  # its word in `dedup.by`
    needs_images: bool = False  # whether the pool must have images

    def check(self, measure: Measure) -> None:
        """Check that the recipe measures what keys are made of. Raises ValueError."""

    def keys(self, tables: UnitTables) -> pa.Array:
        """Return each row's key (string, integer, float or bool); the pass leaves rows whose key is null alone."""
        return tables.read_measured([self.key])[self.key].combine_chunks()


class Nearness(ABC):
    """A pass by nearness.

    Values of rows are arrays whose first dimension is rows. What all units must know before rows are split, a plan, is
    made in `rounds`: in each of them every unit is surveyed by the plan so far (None at first), and a new plan follows.
    Nodes are what edges join: rows (see `groups.row_ids`), or other uint64 numbers.
    """

    rounds: ClassVar[int] = 0
    encoder: str | None = None  # the model whose image embeddings are compared, if any

    @abstractmethod
    def read(self, tables: UnitTables, surviving: Mask) -> tuple[I64, Any]:
        """Return the rows (int64, ascending) among those surviving (bool[rows]) that have a value, and their values."""

    def nodes(self, unit: int, rows: I64, values: Any) -> U64:
        """Return the node of each row (uint64[n])."""
        return row_ids(unit, rows)

    def survey(self, nodes: U64, values: Any, plan: Any) -> Any:
        """Return what a unit adds to the next plan; by default, without rounds, nothing."""
        return None

    def plan(self, plan: Any, surveys: list[Any]) -> Any:
        """Return the next plan, by the surveys of all units, in any order; by default, without rounds, the same."""
        return plan

    @abstractmethod
    def split(self, nodes: U64, values: Any, plan: Any, n_buckets: int) -> Iterator[tuple[Hashable, Part]]:
        """Yield a unit's rows by bucket, each bucket once; near rows of all units are to share some bucket.

        A row may be in several.
        """

    @abstractmethod
    def groups(self, bucket: Any, part: Part) -> Groups:
        """Return the groups that the near pairs of a bucket make; and what a bucket says of `Groups.recall`."""

    def keys(self, tables: UnitTables, groups: Groups) -> pa.Array:
        """Return the label of each row's group (uint64[rows]); null of rows that are in none."""
        return row_keys(tables.unit, tables.rows(), groups)

    def cosines(self, tables: UnitTables, groups: Groups) -> F32 | None:
        """Return `Groups.nearest` of each row (float32[rows]), 0 of rows in no group; None where groups have none."""
        return None

    def search(self, nodes: U64, values: Any) -> Groups:
        """Return the groups over all rows, in one process, as if they were one unit's; a file may hold the values."""
        plan = None
        for _ in range(self.rounds):
            plan = self.plan(plan, [self.survey(nodes, values, plan)])
        buckets = self.split(nodes, values, plan, 1 + len(nodes) // _BUCKET)
        return Groups.join(in_threads(lambda bucket: self.groups(*bucket), buckets))


class ImageNearness(Nearness):
    """A nearness of images: rows can also be compared with an evaluation set."""

    @abstractmethod
    def nearest(self, values: Any, evaluation: pa.Table) -> I64:
        """Return of each value the index of the nearest evaluation image, -1 where none is near (int64[n])."""


@dataclass(frozen=True)
class NearnessKind:
    """A kind of nearness; `check` and `check_against` raise ValueError."""

    key: str  # its word in a pass of `dedup.by`
    section: type[Section]  # what is under it in the recipe
    form: str  # such a section, as messages show it
    # From a section, the recipe's `measure`, and how many rows the pool has where footers say so, to the pass
    build: Callable[[Any, Measure, int | None], Nearness]
    # Of what the recipe must measure, for rows of the pool and for images of an evaluation set
    check: Callable[[Any, Measure], None] = lambda section, measure: None
    check_against: Callable[[Any, Measure], None] = lambda section, measure: None
    compares_images: bool = False  # whether the pass is an ImageNearness, which `dedup.against` needs
    has_cosines: bool = False  # whether its groups have `nearest`, so that `decisions` have `schema.DUPLICATE_COSINE`


def join_parts(parts: Iterable[Part]) -> Part:
    """Return the parts of a bucket as one."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
