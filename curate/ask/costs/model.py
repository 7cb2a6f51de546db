"""What a run will use: one table of costs, each of a step, a resource, a unit of work, what one takes, and how many.

In: trials, whole runs of parts of a pool aside, or a finished run, and how much work there is. Out: `Cost`s. What a
step uses is taken for a·processes + b + c·units + d·rows (of emit kept rows, of some none), of CPU each at least 0.
Trials differ in one of these at a time: cold and warm are of the same part, in a process that has done nothing yet and
in one that has; apart and together of the same rows, in many units and in one. Intervals are of 90 %: d's by its spread
between units, by Student's t; what differences of trials are uncertain by; and what all measurements of a machine are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, hypot, inf, sqrt

from curate.base.meter import ENGINE
from curate.store.facts import RunFacts, UsedFacts
from curate.store.timings import START, USERS

CPU, GPU, MEMORY, READS, WRITES, SHUFFLED, STORED = UsedFacts.kinds()
IDLE = "idle"
# How far a measurement may be from the truth, as a share: one of CPU, with some seconds more; one that counts; and what
# all of them have in common. Of constants that other machines and caches have, more.
_CPU, _SECONDS, _COUNTED, _COMMON, _CONSTANT = 0.1, 0.005, 0.02, 0.1, 0.3
_CONSTANTS = ("publish", ENGINE)  # do not grow by rows
_STUDENT = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)  # t at 90 %, by degrees of freedom
_SERIAL = (START, "publish", ENGINE)  # what the process that drives a run does alone


@dataclass(frozen=True)
class Trial:
    """What a run used, by step; on how many units, rows and kept rows it worked."""

    units: int
    rows: int
    kept: int
    used: Mapping[str, UsedFacts]

    @classmethod
    def of(cls, facts: RunFacts) -> "Trial":
        """Return that of a finished run."""
        return cls(sum(count for _, count in facts.units), facts.rows, facts.kept, {of.step: of for of in facts.used})

    def value(self, step: str, kind: str) -> float:
        """Return what a step used of a kind."""
        return float(getattr(self.used[step], kind)) if step in self.used else 0.0

    def size(self, step: str) -> int:
        """Return the rows that a step works on."""
        return self.kept if step == "emit" else self.rows


@dataclass(frozen=True)
class Trials:
    """Runs of parts of a pool. A finished run is all of them: what is constant in it counts as growing."""

    cold: Trial
    warm: Trial
    apart: Trial
    together: Trial
    start: float = 0.0  # CPU seconds before the first step

    @property
    def rows(self) -> int:
        """Return how many rows were measured, each once."""
        return max(self.cold.rows, self.apart.rows)


@dataclass(frozen=True)
class Work:
    """How much a run has to do; `left` is the share of rows whose tables are neither here nor lent by an older run."""

    rows: float
    kept: float
    units: float
    left: float = 1.0

    def size(self, step: str) -> float:
        """Return the rows that a step works on."""
        share = self.left if step in ("measure", "match") else 1.0
        return self.kept if step == "emit" else self.rows * share


@dataclass(frozen=True)
class Workers:
    """What an engine has at work, as far as its options say, and what it uses besides the steps' work.

    Attributes:
        engine: the key of its prices.
        cores: at work at once; None where the options do not say it: `missing` says which do.
        processes: that the steps work in.
        memory: GB of all of them; None where that is not known.
        overhead: CPU seconds of a run, of a process and of a task, besides what steps use; None: as in the trials.
        seconds: of wall that pass before the first step, and between two.
    """

    engine: str
    cores: int | None
    processes: int
    memory: float | None = None
    missing: str = ""
    overhead: tuple[float, float, float] | None = None
    seconds: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Cost:
    """What a step uses of a resource for one kind of its work: `each` ± `margin`, in the resource's unit, a `count`."""

    step: str
    kind: str
    per: str
    count: float
    each: float
    margin: float

    @property
    def total(self) -> float:
        """Return all of it."""
        return self.count * self.each


@dataclass(frozen=True)
class Range:
    """A sum, and the interval that holds the truth."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, costs: Iterable[Cost]) -> "Range":
        """Return the sum of costs of one resource."""
        some = list(costs)
        value = sum(cost.total for cost in some)
        margin = hypot(*(cost.count * cost.margin for cost in some)) + _COMMON * value
        return cls(value, max(0.0, value - margin), value + margin)

    def times(self, factor: float) -> "Range":
        """Return it in another unit."""
        return Range(self.value * factor, self.low * factor, self.high * factor)


Each = tuple[float, float]  # what one takes, and how far that may be from the truth


def fit(trials: Trials, step: str, kind: str) -> tuple[Each, Each, Each, Each]:
    """Return what a process, a run, a unit and a row of a step use of a kind."""
    cold, warm, apart, together = trials.cold, trials.warm, trials.apart, trials.together
    first, small, many, large = (trial.value(step, kind) for trial in (cold, warm, apart, together))
    size, more_rows = together.size(step), together.size(step) - warm.size(step)
    more_units = apart.units - together.units

    share, least, floor = (_CPU, _SECONDS, 0.0) if kind == CPU else (_COUNTED, 0.0, -inf)

    def margin(*values: float) -> float:
        return hypot(*(share * value + least for value in values)) if any(values) else 0.0

    if step in _CONSTANTS:
        of_row, row_margin = 0.0, 0.0
    elif 2 * more_rows > size:
        of_row, row_margin = max(floor, large - small) / more_rows, margin(large, small) / more_rows
    else:  # no two sizes
        of_row, row_margin = large / max(1, size), margin(large) / max(1, size)
    spread, n = apart.used[step].spread if step in apart.used else None, apart.units
    of_units = spread / sqrt(n) * _STUDENT[min(n - 1, len(_STUDENT)) - 1] if spread and n > 1 and kind == CPU else 0.0
    of_unit = unit_margin = 0.0
    if more_units > 0:
        more = many - large - of_row * (apart.size(step) - size)
        of_unit, unit_margin = max(floor, more) / more_units, margin(many, large) / more_units
    of_run = max(floor, small - of_unit * warm.units - of_row * warm.size(step))
    process = max(floor, first - small)
    return (
        (process, _CONSTANT * abs(process) + margin(first, small)),
        (of_run, _CONSTANT * abs(of_run)),
        (of_unit, unit_margin),
        (of_row, hypot(row_margin, of_units * of_row)),
    )


def predict(trials: Trials, work: Work, workers: Workers) -> list[Cost]:
    """Return the table of costs of a run."""
    costs = [Cost(START, CPU, "run", 1, trials.start, _CONSTANT * trials.start)]
    for step, kind in product(USERS[1:], UsedFacts.kinds()):
        if step == ENGINE and kind == CPU and workers.overhead:
            continue
        process, of_run, of_unit, of_row = fit(trials, step, kind)
        share = work.left if step in ("measure", "match") else 1.0
        costs += [
            Cost(step, kind, "kept rows" if step == "emit" else "rows", work.size(step), *of_row),
            Cost(step, kind, "units", work.units * share, *of_unit),
            Cost(step, kind, "processes", workers.processes if share else 0, *process),
            Cost(step, kind, "run", 1 if share else 0, *of_run),
        ]
    if workers.overhead:
        tasks = _count_tasks(work.units, workers.cores or 1)
        counts = {"run": 1.0, "processes": workers.processes, "tasks": tasks}
        for (per, count), each in zip(counts.items(), workers.overhead, strict=True):
            costs.append(Cost(ENGINE, CPU, per, count, each, _CONSTANT * each))
    return [cost for cost in costs if cost.count and (cost.each or cost.margin)]


_STAGES = 15  # of a run, about, that work on all units, and as many that do not


def _count_tasks(units: float, cores: int) -> float:
    """Return about how many tasks a run has on Spark: see `pipelines.spark.execution`."""
    return _STAGES * (1 + min(units, max(2 * cores, min(max(64, 4 * cores), units / 4))))


def find_seconds(costs: Sequence[Cost], work: Work, workers: Workers) -> Range | None:
    """Return the seconds of wall of a run whose cores are its own; None where it is not known how many these are.

    What a process does once all do at once; what the driver does alone, that of tasks too, nobody shares; units are
    shared by the cores, and the last round of them leaves some idle.
    """
    if workers.cores is None:
        return None
    at_once = min(workers.cores, max(1.0, work.units))
    rounds = ceil(work.units / workers.cores) * workers.cores / max(1.0, work.units, float(workers.cores))
    seconds = []
    for cost in costs:
        if cost.kind == CPU:
            alone = cost.step in _SERIAL and cost.per in ("run", "rows", "units") and workers.overhead is None
            share = (
                1.0
                if alone or cost.per in ("run", "tasks")
                else 1 / workers.processes
                if cost.per == "processes"
                else 0.0
            )
            seconds.append(replace(cost, count=cost.count * (share or rounds / at_once)))
    begin, between = workers.seconds
    waiting = begin + 2 * _STAGES * between
    seconds.append(Cost(ENGINE, CPU, "run", 1, waiting, _CONSTANT * waiting))
    return Range.of(seconds)


def add_idle(costs: Sequence[Cost], seconds: Range, workers: Workers) -> Iterator[Cost]:
    """Yield the core-seconds of machines that are paid for while their cores wait."""
    used = Range.of(cost for cost in costs if cost.kind == CPU)
    if workers.cores and seconds.value * workers.cores > used.value:
        each = seconds.value - used.value / workers.cores
        yield Cost(IDLE, CPU, "cores", workers.cores, each, _CONSTANT * each)
