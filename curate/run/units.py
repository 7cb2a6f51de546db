"""The units of a run (partitions of its input), and the interface for steps over them, in Beam or in this process.

Steps on single units alternate with questions to all units, for example about a threshold, counts or repeated hashes:

    units.then("Rules", apply)                              computes each unit's next state
    counts = units.ask("Counts", count, combine=Fold(add))  combines one answer from all units
    limits = units.get("Limits", limit, counts)             computes a value from answers
    units.then("Decide", draw, limits)                      answers are arguments of later steps

Units may depend on each other, for example through rows with the same hash. Then `pairs` sends values by key. `group`
gets all values of a key, and yields results for units as `ToUnit`. `then(…, sent=…)` passes these results to the units.
Only counts, keys and file names are sent, never a row's text or image. Elements are units or their states, which have a
`unit`. A step is a function of the unit's open tables, the element, and values.
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
Yields = Callable[..., Iterable[Any]]  # a function that yields the parts of an answer


class WorkerLocation(Enum):
    """Where steps run. Their output is the same everywhere.

    Places differ in what is sent to steps, and how many run at once.
    """

    THIS_PROCESS = "this process"  # workers share the objects that this process has loaded
    PROCESSES = "processes of this machine"
    LOCAL_CLUSTER = "a cluster on this machine"  # such as Spark's local[N]
    CLUSTER = "other machines"

    @property
    def is_this_machine(self) -> bool:
        """Whether workers can read files on this machine."""
        return self is not WorkerLocation.CLUSTER

    @property
    def is_cluster(self) -> bool:
        """Whether the work is spread over a cluster, where no worker may have data about the whole pool in memory."""
        return self in (WorkerLocation.LOCAL_CLUSTER, WorkerLocation.CLUSTER)


class Answer(Generic[T_co]):
    """What units answered, or a value computed from answers, for later steps.

    Each form of `Units` has its own class.
    """


class Pairs(Generic[K_co, T_co]):
    """Pairs of key and value that are sent to `group`, or to units."""

    side_output: Answer[list[Any]]  # what the function of `group` yielded as `SideOutput`
    items: Answer[list[tuple[K_co, T_co]]]  # the pairs


@dataclass(frozen=True)
class SideOutput:
    """A result from the function of `group` that is for all, not for one key."""

    value: Any


class ToUnit(NamedTuple):
    """A result from the function of `group` for one unit, given by its index."""

    unit: int
    value: Any


class Combine(ABC, Generic[P, W]):
    """Combines the answers of units, in any order and grouping, so that no worker needs a list of all answers."""

    tree: "Combine[Any, Any] | None" = None  # for large answers: a cluster combines thousands of them in a tree

    @abstractmethod
    def create(self) -> Any:
        """Return an accumulator that has no parts yet."""

    @abstractmethod
    def add(self, accumulator: Any, part: P) -> Any:
        """Return the accumulator after one more part is added."""

    @abstractmethod
    def merge(self, accumulators: Iterable[Any]) -> Any:
        """Return one accumulator that combines several."""

    def result(self, accumulator: Any) -> W:
        whole: W = accumulator
        return whole

    def reduce(self, parts: Iterable[P]) -> W:
        return self.result(reduce(self.add, parts, self.create()))


class Fold(Combine[P, P]):
    """Combine parts with an associative function of two; without parts, the result is None.

    Use integers for sums that decide about rows. `large` means that a part has about half a megabyte or more; see
    `tree`.
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
    """Combine parts into an object. Its class has `add` for a part, and `merge` for another object of the class."""

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
    """The units of a run. A step's values (`values`) are `Answer`s, or anything that pickle accepts."""

    # Where steps run. A step may have data about all units in memory, and use all cores, unless this is a cluster
    place: WorkerLocation = WorkerLocation.THIS_PROCESS
    stage = "decide"  # the stage to which new steps belong

    def at(self, stage: str, add: Callable[Concatenate["Units", A], W], *values: A.args, **named: A.kwargs) -> W:
        """Return `add(self, *values, **named)`. The steps that it adds count toward a stage in `curate.base.stages`."""
        before, self.stage = self.stage, STAGE[stage].name
        result = add(self, *values, **named)
        self.stage = before
        return result

    @abstractmethod
    def then(self, name: str, function: Callable[..., Any], *values: Any, sent: Pairs | None = None) -> None:
        """Compute each unit's next state with `function(tables, element, *values)`.

        With `sent`, a result of `group`, it is `function(tables, element, items, *values)`. The items are in any order.
        """

    @abstractmethod
    def ask(self, name: str, function: Yields, *values: Any, combine: Combine | None = None) -> Answer[Any]:
        """Combine or list the results of `function(tables, element, *values)`. The units' states do not change."""

    @abstractmethod
    def pairs(self, name: str, function: Yields, *values: Any, sent: Pairs | None = None) -> Pairs:
        """Let each unit yield pairs of key and value, like `ask`; `sent` is used like in `then`."""

    @abstractmethod
    def group(self, name: str, pairs: Pairs, function: Yields, *values: Any) -> Pairs:
        """Return what `function(key, its values in any order, *values)` yields: pairs, `ToUnit`, `SideOutput`."""

    @abstractmethod
    def get(self, name: str, function: Callable[..., W], *values: Any, **named: Any) -> Answer[W]:
        """Return the result of `function(*values, **named)`, which is called once."""

    @abstractmethod
    def combine(self, name: str, answers: Sequence[Answer[list[P]]], combine: Combine[P, W]) -> Answer[W]:
        """Combine the items of several lists."""

    @abstractmethod
    def each(self, name: str, items: Answer[list[Any]], function: Callable[..., W], *values: Any) -> Answer[list[W]]:
        """Return the list of `function(item, *values)` for the items of an answer. All workers share this work."""
