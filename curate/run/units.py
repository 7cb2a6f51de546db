"""The units of a run (partitions of its input), and how steps are written: over `Units`, in Beam or in this process.

What a unit does alone alternates with what all of them must be asked first (a threshold, counts, hashes that repeat):

    units.then("Rules", apply)                              each unit's next state
    counts = units.ask("Counts", count, combine=Fold(add))  one answer of all units
    limits = units.get("Limits", limit, counts)             what follows from answers
    units.then("Decide", draw, limits)                      answers are arguments of later steps

Where units must learn of each other (rows with one hash), `pairs` sends values by key, `group` works on those of a key
and yields what is for a unit as `ToUnit`, and `then(…, sent=…)` hands it to that unit. Only counts, keys and file names
travel, never a row's text or image. Elements are units or their states, which have a `unit`. A step is a function of
the unit's open tables, the element, and values.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from curate.base.stages import STAGE

A = ParamSpec("A")
P = TypeVar("P")
W = TypeVar("W")
T_co = TypeVar("T_co", covariant=True)
K_co = TypeVar("K_co", covariant=True)
Yields = Callable[..., Iterable[Any]]  # what yields the parts of an answer


class WorkerLocation(Enum):
    """Where steps work. What they write is the same everywhere; what travels to them, and how many, is not."""

    THIS_PROCESS = "this process"  # so what it loads before is there for them
    PROCESSES = "processes of this machine"
    LOCAL_CLUSTER = "a cluster on this machine"  # as Spark's local[N]
    CLUSTER = "other machines"

    @property
    def is_this_machine(self) -> bool:
        """Whether workers have the files of this machine."""
        return self is not WorkerLocation.CLUSTER

    @property
    def is_cluster(self) -> bool:
        """Whether work is spread over workers, none of which may hold what belongs to the whole pool."""
        return self in (WorkerLocation.LOCAL_CLUSTER, WorkerLocation.CLUSTER)


class Answer(Generic[T_co]):
    """What units answered, or what follows from it: a value of later steps. Each form of `Units` has its own class."""


class Pairs(Generic[K_co, T_co]):
    """Pairs of key and value on their way to `group`, or to units."""

    side_output: Answer[list[Any]]  # what `group`'s function yielded as `SideOutput`
    items: Answer[list[tuple[K_co, T_co]]]  # the pairs


@dataclass(frozen=True)
class SideOutput:
    """What a function of `group` yields for all to know, and not for a key."""

    value: Any


class ToUnit(NamedTuple):
    """What a function of `group` yields for a unit, by its index."""

    unit: int
    value: Any


class Combine(ABC, Generic[P, W]):
    """How parts that units answer become one whole, in any order and grouping: no worker holds a list of them."""

    tree: "Combine[Any, Any] | None" = None  # combines large wholes, of which a cluster has thousands

    @abstractmethod
    def create(self) -> Any:
        """Return an accumulator without parts."""

    @abstractmethod
    def add(self, accumulator: Any, part: P) -> Any:
        """Return the accumulator with one more part."""

    @abstractmethod
    def merge(self, accumulators: Iterable[Any]) -> Any:
        """Return one accumulator for several."""

    def result(self, accumulator: Any) -> W:
        whole: W = accumulator
        return whole

    def reduce(self, parts: Iterable[P]) -> W:
        return self.result(reduce(self.add, parts, self.create()))


class Fold(Combine[P, P]):
    """Combine by an associative function of two; of no part, to None. Sums that decide are of integers.

    `large` are parts of half a megabyte, say, as `tree` has it.
    """

    def __init__(self, function: Callable[[P, P], P] = operator.add, large: bool = False) -> None:
        self._function = function
        if large:
            self.tree = Fold(function)

    def create(self) -> Any:
        return None

    def add(self, accumulator: Any, part: P) -> Any:
        return part if accumulator is None else self._function(accumulator, part)

    def merge(self, accumulators: Iterable[Any]) -> Any:
        parts = (part for part in accumulators if part is not None)
        first: Any = next(parts, None)
        return reduce(self._function, parts, first)


class Total(Combine[P, W]):
    """Combine into an object of a class that has `add`, for a part, and `merge`, for another total."""

    def __init__(self, kind: Callable[[], W]) -> None:
        self._kind = kind

    def create(self) -> Any:
        return self._kind()

    def add(self, accumulator: Any, part: P) -> Any:
        accumulator.add(part)
        return accumulator

    def merge(self, accumulators: Iterable[Any]) -> Any:
        total: Any = self.create()
        for accumulator in accumulators:
            total.merge(accumulator)
        return total


class Units(ABC):
    """The units of a run. A value of a step (`values`) is an `Answer`, or anything that pickle takes."""

    # Where steps work: unless it is a cluster, a step over all of them may hold them, and use all cores
    place: WorkerLocation = WorkerLocation.THIS_PROCESS
    stage = "decide"  # whose work the steps are that are added now

    def at(self, stage: str, add: Callable[Concatenate["Units", A], W], *values: A.args, **named: A.kwargs) -> W:
        """Return `add(self, *values, **named)`, whose steps count for a stage of `curate.base.stages`."""
        before, self.stage = self.stage, STAGE[stage].name
        result = add(self, *values, **named)
        self.stage = before
        return result

    @abstractmethod
    def then(self, name: str, function: Callable[..., Any], *values: Any, sent: Pairs | None = None) -> None:
        """Give each unit its next state: `function(tables, element, *values)`.

        With `sent`, of `group`, `function(tables, element, what was sent to the unit, *values)`: a list in any order.
        """

    @abstractmethod
    def ask(self, name: str, function: Yields, *values: Any, combine: Combine | None = None) -> Answer[Any]:
        """Ask each unit, which stays as it is, and combine or list what `function(tables, element, *values)` gives."""

    @abstractmethod
    def pairs(self, name: str, function: Yields, *values: Any, sent: Pairs | None = None) -> Pairs:
        """Ask each unit for pairs of key and value, as `ask` does; `sent` as of `then`."""

    @abstractmethod
    def group(self, name: str, pairs: Pairs, function: Yields, *values: Any) -> Pairs:
        """Return what `function(key, its values in any order, *values)` yields: pairs, `ToUnit`, and `SideOutput`."""

    @abstractmethod
    def get(self, name: str, function: Callable[..., W], *values: Any, **named: Any) -> Answer[W]:
        """Return `function(*values, **named)`, computed once."""

    @abstractmethod
    def combine(self, name: str, answers: Sequence[Answer[list[P]]], combine: Combine[P, W]) -> Answer[W]:
        """Combine the items of several lists."""

    @abstractmethod
    def each(self, name: str, items: Answer[list[Any]], function: Callable[..., W], *values: Any) -> Answer[list[W]]:
        """Return the list of `function(item, *values)` for each item of an answer's value, spread over all workers."""
