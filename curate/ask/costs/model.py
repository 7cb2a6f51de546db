"""What a run will use: a table of `Cost`s, each what a step takes of a resource for a unit of work, times a count.

In: trials, runs of parts of a pool aside, or a finished run, and how much work there is. What a step uses is taken for
a·processes + b + c·units + d·rows, of CPU each at least 0. Trials differ in one of these at a time: first and second by
whether the process has done something before, scattered and adjacent by the units of the same rows. Margins are of
90 %.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, hypot, inf, sqrt
from typing import NamedTuple

from curate.base.meter import ENGINE, START
from curate.base.stages import STAGE, STAGES
from curate.publish.drift import SAMPLED
from curate.store.facts import RunFacts, UsedFacts

CPU, GPU, MEMORY, READS, WRITES, SHUFFLED, STORED = UsedFacts.kinds()
IDLE = "idle"  # cores that wait: paid for, but nobody's work
DISK = "disk"  # of machines, in GB-seconds: no step counts it
# How far a measurement may be from the truth, as a share: one of CPU, with some seconds more; one that counts; what all
# of a machine have in common; and of constants, which caches and neighbours change.
_CPU, _SECONDS, _COUNTED, _COMMON, _CONSTANT = 0.1, 0.008, 0.05, 0.1, 0.3
_PACKED = 0.2  # of bytes that are grouped, whose packing depends on how many there are
_STUDENT = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)  # t at 90 %, by degrees of freedom
_CONSTANTS = tuple(stage.name for stage in STAGES if stage.grows == "run")
_STAGES = 15  # of a run, about, that work on all units, and as many that do not


class CalibrationRun(NamedTuple):
    """What a run used, by step; on how many units, rows and kept rows it worked."""

    units: int
    rows: int
    kept: int
    used: Mapping[str, UsedFacts]
    sources: int = 1

    @classmethod
    def of(cls, facts: RunFacts) -> "CalibrationRun":
        used = {step.step: step for step in facts.used}
        sources = len({source for source, _ in facts.units})
        return cls(sum(count for _, count in facts.units), facts.rows, facts.kept, used, sources)

    def value(self, step: str, kind: str) -> float:
        return float(getattr(self.used[step], kind)) if step in self.used else 0.0

    def size(self, step: str) -> int:
        """Return the rows that a step works on."""
        sampled = min(self.rows, self.sources * 2 * SAMPLED)
        return {"kept rows": self.kept, "sampled rows": sampled}.get(STAGE[step].grows, self.rows)


class Trials(NamedTuple):
    """Runs of parts of a pool; of a finished run, all are that one.

    `start` is CPU seconds before the first step, `bytes` those of a row in the inputs, 0 where nobody looked;
    `compiling` is CPU seconds that each process of other machines will spend on kernels, as this one did once; `run` is
    the folder of the finished run.
    """

    first: CalibrationRun
    second: CalibrationRun
    scattered: CalibrationRun
    adjacent: CalibrationRun
    start: float = 0.0
    bytes: float = 0.0
    compiling: float = 0.0
    run: str = ""


class Work(NamedTuple):
    """How much a run has to do; `left`: the share of rows whose tables are neither here nor lent by an older run."""

    rows: float
    kept: float
    units: float
    left: float = 1.0


class Workers(NamedTuple):
    """What an engine has at work, as far as its options say, and what it uses besides the steps' work.

    Attributes:
        engine: the key of its prices.
        cores: at work at once; None where the options do not say it: `missing` says which do.
        processes: that the steps work in; None: one a core.
        memory: GB of all of them; None where that is not known.
        overhead: CPU seconds of a run, of a process and of a task, Java's included; None: what trials show.
        seconds: of wall that pass before the first step, and between two.
        disk: GB of all of their machines, where the engine asks money for it.
    """

    engine: str
    cores: int | None = None
    processes: int | None = None
    memory: float | None = None
    missing: str = ""
    overhead: tuple[float, float, float] | None = None
    seconds: tuple[float, float] = (0.0, 0.0)
    disk: float = 0.0


class Range(NamedTuple):
    """A sum, and the interval that holds the truth in 8 of 10 runs."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(*(factor * value for value in self))


@dataclass(frozen=True)
class Cost:
    """What a step uses of a resource for one kind of its work: `each` ± `margin`, in the resource's unit, a `count`."""

    step: str
    kind: str
    per: str
    count: float
    each: float
    margin: float


def add_up(costs: Iterable[Cost]) -> Range:
    """Return the sum of costs of one resource."""
    parts = list(costs)
    value = sum(cost.count * cost.each for cost in parts)
    margin = hypot(*(cost.count * cost.margin for cost in parts)) + _COMMON * value
    return Range(value, max(0.0, value - margin), value + margin)


def fit(trials: Trials, step: str, kind: str) -> list[tuple[float, float]]:
    """Return what a process, a run, a unit and a row of a step use of a kind, each with its margin."""
    second, scattered, adjacent = trials[1:4]
    cold_value, small, many, large = (trial.value(step, kind) for trial in trials[:4])
    share, minimum, floor = (_CPU, _SECONDS, 0.0) if kind == CPU else (_COUNTED, 0.0, -inf)
    share = _PACKED if kind == SHUFFLED else share

    def margin(*values: float) -> float:
        return hypot(*(share * value + minimum for value in values)) if any(values) else 0.0

    size, more_units = adjacent.size(step), scattered.units - adjacent.units
    row = row_margin = unit = unit_margin = scatter = 0.0
    if step not in _CONSTANTS and 2 * second.size(step) < size:
        rows = size - second.size(step)
        row, row_margin = max(floor, large - small) / rows, margin(large, small) / rows
    elif step not in _CONSTANTS:  # no two sizes
        row, row_margin = large / max(1, size), margin(large) / max(1, size)
    if more_units > 0:
        more_value = many - large - row * (scattered.size(step) - size)
        unit, unit_margin = max(floor, more_value) / more_units, margin(many, large) / more_units
    if kind == CPU and scattered.units > 1 and step in scattered.used and (spread := scattered.used[step].spread):
        scatter = row * spread / sqrt(scattered.units) * _STUDENT[min(scattered.units - 1, len(_STUDENT)) - 1]
    run = max(floor, small - unit * second.units - row * second.size(step))
    process = max(floor, cold_value - small)
    margins = _CONSTANT * abs(process) + margin(cold_value, small), _CONSTANT * abs(run), unit_margin
    return list(zip((process, run, unit, row), (*margins, hypot(row_margin, scatter)), strict=True))


def predict(trials: Trials, work: Work, workers: Workers) -> list[Cost]:
    """Return the table of costs of a run."""
    costs = [Cost(START, CPU, "run", 1, trials.start, _CONSTANT * trials.start)]
    cores = workers.cores or 1
    processes = workers.processes or cores
    sampled = min(work.rows, trials.scattered.sources * 2 * SAMPLED)
    for stage, kind in product(STAGES[1:], UsedFacts.kinds()):
        step = stage.name
        if kind != MEMORY and (step != ENGINE or kind != CPU or not workers.overhead):
            share = work.left if stage.is_reused else 1.0
            rows = "rows", sampled if stage.grows == "sampled rows" else work.rows * share
            if stage.grows == "kept rows":
                rows = stage.grows, work.kept
            counts = (("processes", processes * bool(share)), ("run", bool(share)), ("units", work.units * share), rows)
            each = zip(counts, fit(trials, step, kind), strict=True)
            costs += (Cost(step, kind, *count, *fitted) for count, fitted in each)
    if workers.overhead:  # tasks: see `pipelines.spark.execution`
        costs.append(Cost(START, CPU, "processes", processes, trials.compiling, _CONSTANT * trials.compiling))
        tasks = _STAGES * (1 + min(work.units, max(2 * cores, min(max(64, 4 * cores), work.units / 4))))
        counted = zip(("run", "processes", "tasks"), (1, processes, tasks), workers.overhead, strict=True)
        costs += (Cost(ENGINE, CPU, per, count, each, _CONSTANT * each) for per, count, each in counted)
    return [cost for cost in costs if cost.count and (cost.each or cost.margin)]


def find_seconds(costs: Sequence[Cost], work: Work, workers: Workers) -> Range | None:
    """Return the seconds of wall of a run that has its cores to itself; None where nobody says how many these are.

    What a process does once all do at once; what the driver does alone, that of tasks too, nobody shares; units are
    shared by the cores, and the last round of them leaves some idle.
    """
    if not workers.cores:
        return None
    at_once = min(workers.cores, max(1.0, work.units))
    rounds = ceil(work.units / workers.cores) * workers.cores / max(1.0, work.units, workers.cores)
    alone = {"run", "tasks"} | ({"units", "rows"} if workers.overhead is None else set())
    waiting = workers.seconds[0] + 2 * _STAGES * workers.seconds[1]
    seconds = [Cost(ENGINE, CPU, "run", 1, waiting, _CONSTANT * waiting)]
    for cost in costs:
        if cost.kind == CPU:
            is_alone = cost.per in ("run", "tasks") or (cost.step in (START, *_CONSTANTS) and cost.per in alone)
            share = 1 / (workers.processes or workers.cores) if cost.per == "processes" else rounds / at_once
            seconds.append(replace(cost, count=cost.count * (1.0 if is_alone else share)))
    return add_up(seconds)


def add_waiting(costs: list[Cost], seconds: Range | None, workers: Workers) -> None:
    """Add what machines are paid for besides their work: the time of idle cores, memory and disks."""
    if seconds and workers.cores:
        margin = (seconds.high - seconds.low) / 2
        idle = seconds.value - add_up(cost for cost in costs if cost.kind == CPU).value / workers.cores
        costs += [Cost(IDLE, CPU, "cores", workers.cores, idle, _CONSTANT * idle)] if idle > 0 else []
        for kind, size in ((MEMORY, workers.memory), (DISK, workers.disk)):
            costs += [Cost("all", kind, "GB", size, seconds.value, margin)] if size else []
