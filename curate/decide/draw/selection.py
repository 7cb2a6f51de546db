"""The interface that every selection implements: the last choice among the rows left by rules and deduplication.

A selection asks all units what it needs (`choose`), and returns a `Choice`, which goes to every unit: the probability
of each row left, and its draw. Draws are hashes of uid and seed, so they do not depend on sharding, order, workers or
retries. What explain, card, report, summaries and what-if say of it are its `words`; nobody else states a formula.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import RunError
from curate.base.ids import hash_uids
from curate.base.numeric.arrays import F64, I32, I64, U64, Mask, whole
from curate.base.process import in_threads
from curate.decide.draw.inclusion import ONE, fixed_point
from curate.match.unit import Entries, MatchSettings, load_entries, read_matches
from curate.recipe.section import Section
from curate.run.units import Answer, Units
from curate.store.facts import RunFacts, SelectionWords
from curate.store.store import RunStore
from curate.store.tables import UnitTables

V = TypeVar("V")


@dataclass(frozen=True)
class RowsLeft:
    """The rows of a unit among which is chosen, with what a choice may read of them; columns have a value for each."""

    tables: UnitTables  # the unit's, with all its rows
    source: str  # the name of the source that the unit is of
    seed: int  # of draws
    eligible: Mask  # bool[rows], which rows of the unit these are
    entries: Entries | None  # the metadata's; None without `match`
    columns: Callable[[list[str]], pa.Table]  # from names of columns that rules see to a table of all rows of the unit
    one_caption_per: str | None = None  # the column of images (`balance.one_per`)
    texts: F64 | None = None  # how many rows left have each row's image (float64[rows]): one of them may be drawn
    find_matches: Callable[["RowsLeft"], pa.ListArray] | None = None  # where entries are other than the metadata's

    def __len__(self) -> int:
        return int(self.eligible.sum())

    def with_values(self, groups: Any) -> Self:
        """Return these rows with the values of ColumnGroups as their entries; as they are where there are none."""
        return self if groups is None else replace(self, entries=groups.entries, find_matches=groups.matches)

    def _left(self, values: Any) -> Any:
        return values if self.eligible.all() else values.filter(pa.array(self.eligible))

    def read(self, names: list[str]) -> pa.Table:
        table: pa.Table = self._left(self.columns(names))
        return table

    @cached_property
    def uids(self) -> pa.Array:
        """Each row's uid (string of 32 hex digits)."""
        return whole(self._left(self.tables.read_uids()))

    @cached_property
    def matches(self) -> pa.ListArray:
        """The ids of the entries in each caption (list<int32>)."""
        if self.find_matches:
            return self.find_matches(self)
        matches: pa.ListArray = self._left(read_matches(self.tables))
        return matches

    @cached_property
    def shared_images(self) -> tuple[Mask, U64]:
        """Which rows have their image in common with others, and of these a hash of it (uint64)."""
        assert self.one_caption_per is not None and self.texts is not None
        is_shared = self.texts > 1
        column = self._left(self.tables.read("samples", [self.one_caption_per])[self.one_caption_per])
        return is_shared, ids.entry_keys(whole(column.filter(pa.array(is_shared))))

    @cached_property
    def earlier(self) -> F64 | None:
        """The probability with which each row came into the pool (float64, NaN without one); None: none has one."""
        name = schema.INPUT_PROBABILITY
        if not self.tables.exists("scores") or name not in self.tables.column_names("scores"):
            return None
        column = pc.cast(self._left(self.tables.read("scores", [name])[name]), pa.float64())
        return np.asarray(column.to_numpy(), np.float64)


def texts_error(rows: Sequence[RowsLeft], inclusion: Sequence[F64]) -> float:
    """Return the standard error of the number of rows drawn, where one text of each image may be, by all their π."""
    shared = [part.shared_images for part in rows]
    alone = [pi[~is_shared] for pi, (is_shared, _) in zip(inclusion, shared, strict=True)]
    images = np.concatenate([np.zeros(0, np.uint64), *(images for _, images in shared)])
    of_texts = [pi[is_shared] for pi, (is_shared, _) in zip(inclusion, shared, strict=True)]
    sums = np.bincount(np.unique(images, return_inverse=True)[1], np.concatenate([np.zeros(0), *of_texts]))
    return float(np.sqrt(sum(float((pi * (1 - pi)).sum()) for pi in [*alone, np.minimum(sums, 1)])))


FindRows = Callable[[UnitTables, Any], RowsLeft]
"""From a unit's tables and state to its rows that are left."""


@dataclass(frozen=True)
class SelectionRun:
    """What a selection may use of a run."""

    seed: int  # of draws
    matching: MatchSettings | None  # where the metadata's entries are; None without `match`
    place: str  # the run's folder, for messages; empty where none is on its way
    rows_left: FindRows
    columns: pa.Schema  # those that rules see
    store: RunStore  # the run's folder
    fraction: float = 1.0  # of the pool's rows, that units hold: less where a part of it is asked, for an estimate
    groups: Any = None  # the ColumnGroups whose values are the entries; None where these are the metadata's

    @property
    def metadata_key(self) -> str:
        return self.matching.metadata_key if self.matching else ""

    @property
    def entries(self) -> Entries:
        entries: Entries = self.groups.entries if self.groups is not None else load_entries(required(self.matching))
        return entries


class Choice(ABC):
    """What was chosen for the whole pool. It travels to each unit, so it is small, or as long as the entries."""

    is_uniform: ClassVar[bool] = False
    """Whether each row left has the same probability, and the number of rows is exact."""

    @property
    def is_random(self) -> bool:
        """Whether rows are kept by chance. Else `inclusion` is 1 or 0, as rows are kept or not, and no probability."""
        return True

    @abstractmethod
    def inclusion(self, rows: RowsLeft) -> F64:
        """Return the probability π that each row is kept (float64[n])."""

    def draws(self, rows: RowsLeft) -> F64:
        """Return the draw of each row (float64[n]), below 1 iff it is kept; by default u/π, u a hash in [0, 1)."""
        pi = self.inclusion(rows)
        units = (hash_uids(rows.uids, rows.seed) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.asarray(np.divide(units, pi, out=np.full(len(pi), np.inf), where=pi > 0), np.float64)

    def repeats(self, draws: F64) -> I32 | None:
        """Return how often rows with these draws are in the curated set (int32[n]); None: once if they are kept."""
        return None

    def expected(self, inclusion: Sequence[F64]) -> tuple[float, float]:
        """Return the expected number of rows, by the π of all units, and the standard error of the drawn number."""
        rows = sum(int(fixed_point(pi).sum()) for pi in inclusion) / ONE
        return rows, float(np.sqrt(sum(float((pi * (1 - pi)).sum()) for pi in inclusion)))

    def entry_probabilities(self) -> F64 | None:
        """Return the probability of each entry's draws of its rows (float64[entries]); None where entries draw none."""
        return None

    @property
    def values(self) -> Mapping[str, Any]:
        """Numbers that run.json keeps of it, by name: `t`, `expected` and `expected_above` of balance."""
        return {}

    @property
    def label(self) -> str:
        """What names it in a line, such as t = 20,000; empty where there is nothing to say."""
        return ""

    def say(self, section: Any, fraction: float) -> str:
        """Return the label with what people would ask of it, where it was chosen in a part (`fraction`) of the pool."""
        return self.label

    def shortfall(self, section: Any) -> str:
        """Return what the section asks for and the choice does not come near, with what is reachable; else nothing."""
        return ""

    def shares(self, survivors: I64, kept: I64 | F64) -> Mapping[str, float | None]:
        """Return numbers that `whatif` shows, by name, from the rows left and kept that match each entry."""
        return {}


class Outcome(NamedTuple):
    """What a finished run did by a choice."""

    section: Any  # of the recipe
    choice: Any  # of all units
    seed: int  # of draws
    kept: int  # rows
    dropped: int  # rows
    entries: pa.Table  # entries.parquet, empty without `match`


class Selection(ABC):
    """One selection; it has no state."""

    key: ClassVar[str]  # its section in a recipe, and in `decisions.rule` the name of the rows that it drops
    section: ClassVar[type[Section]]  # the class of that section; its docstring and fields are the reference's
    meaning: ClassVar[str]  # why a row is dropped, of all such rows
    needs_match: ClassVar[bool] = False  # whether entries are what it goes by
    # The section's keys, dotted, that are numbers of rows, the size first: `plan` scales them, `whatif` sweeps them.
    sizes_of: ClassVar[tuple[str, ...]] = ()
    has_repeats: ClassVar[bool] = False  # whether a row may be in the curated set several times

    @property
    def forms(self) -> Mapping[str, "Selection"]:
        """Other forms, by the section's keys that ask for them."""
        return {}

    @abstractmethod
    def words(self, outcome: Outcome) -> SelectionWords:
        """Return what people are told of it: see `SelectionWords`."""

    @abstractmethod
    def choose(self, units: Units, section: Any, run: SelectionRun, counts: Answer[I64] | None) -> Answer[Any]:
        """Ask all units what the choice goes by, and return it: a Choice.

        `counts` (int64[entries]) are the rows left that match each entry; None without `match`. Raises RunError, in a
        step, where the recipe asks for what cannot be.
        """

    def form(self, section: Any) -> "Selection":
        """Return the selection that a section asks for, where it has one of several forms."""
        return self

    def sizes_in(self, section: Any) -> dict[str, int]:
        """Return the numbers of rows that a section of this form has, by their keys."""
        sizes = {name: attrgetter(name)(section) for name in self.sizes_of}
        return {name: rows for name, rows in sizes.items() if rows is not None}

    def columns(self, section: Any) -> Sequence[str]:
        """Return the columns that the section names, beside those of its SQL: a pool is read with them."""
        return ()

    def check(self, section: Any, columns: pa.Schema, recipe: Any) -> None:
        """Check the section against the columns that rules see, and the recipe. Raises RecipeError."""
        return None

    def check_entries(self, section: Any, entries: Entries) -> None:
        """Check the section against the metadata's entries. Raises RecipeError."""
        return None

    def files_key(self, section: Any, metadata_key: str) -> str:
        """Return the digest of what it reads of files that the section names; empty without. Raises RecipeError."""
        return ""

    def recorded(self, section: Any, facts: RunFacts, run: SelectionRun, counts: I64) -> Choice | None:
        """Return what a finished run chose, by its survivors' `counts`, for `Choice.shares`; None without."""
        return None

    def sizes(self, choices: Sequence[Any], rows: Sequence[RowsLeft]) -> list[tuple[float, float]]:
        """Return `Choice.expected` of several choices among the same rows; one pass for all of them is faster."""
        return [choice.expected(list(in_threads(choice.inclusion, rows))) for choice in choices]


class SampleForm(NamedTuple):
    """A form of section `sample`: `key` asks for it, with a section in which the selection finds what it needs."""

    key: str
    section: type[Section]
    selection: Selection


def required(value: V | None) -> V:
    """Return what a section of this form has."""
    assert value is not None
    return value


class OutOfReach(RunError):
    """What a selection aims at cannot be reached, not even by `choice`, the one that comes nearest."""

    def __init__(self, message: str, choice: Choice, nearest: str) -> None:
        super().__init__(message)
        self.choice, self.nearest = choice, nearest  # in words: t = 1, the smallest
