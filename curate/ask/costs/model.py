"""Estimate the resources that a run will use: a `Cost` has a step's use per unit of work, and the amount of work.

In: trials (runs of parts of a pool in a temporary folder) or a finished run, and the amount of work. The model of a
step's use is a·processes + b + c·units + d·rows; for CPU, each coefficient is at least 0. Trials vary one term at a
time: `first` and `second` differ in whether the process has worked before, `scattered` and `adjacent` in how many units
hold the same rows. Margins are 90% intervals.
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
IDLE = "idle"  # cores that wait: paid for, but used by no step
DISK = "disk"  # of machines, in GB-seconds; not measured per step
# Relative errors: of measured CPU, plus some seconds; of counts; shared by all measurements on a machine; and of
# constants, which vary with caches and other load.
_CPU, _SECONDS, _COUNTED, _COMMON, _CONSTANT = 0.1, 0.008, 0.05, 0.1, 0.3
_PACKED = 0.2  # of grouped bytes, whose packing depends on their number
_STUDENT = (6.31, 2.92, 2.35, 2.13, 2.02, 1.94, 1.89, 1.86, 1.83, 1.81)  # Student's t at 90%, by degrees of freedom
_CONSTANTS = tuple(stage.name for stage in STAGES if stage.grows == "run")
_STAGES = 15  # about how many stages of a run work on all units; about as many do not


class CalibrationRun(NamedTuple):
    """What a run used, by step, and how many units, rows and kept rows it processed."""

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
        """Return how many rows a step processes."""
        sampled = min(self.rows, self.sources * 2 * SAMPLED)
        return {"kept rows": self.kept, "sampled rows": sampled}.get(STAGE[step].grows, self.rows)


class Trials(NamedTuple):
    """Four trial runs over parts of a pool; if a finished run is used instead, all four are that run.

    `start` is the CPU seconds before the first step; `bytes` the bytes per row in the inputs, 0 if unknown; `compiling`
    the CPU seconds that each process on another machine will spend to compile kernels; `run` the folder of the finished
    run.
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
    """How much work a run has; `left`: the share of rows without tables, here or in a run that it reuses."""

    rows: float
    kept: float
    units: float
    left: float = 1.0


class Workers(NamedTuple):
    """The resources of an engine, as far as its options say, and its overhead beyond the steps' work.

    Attributes:
        engine: the key of its prices.
        cores: concurrent cores; None if the options do not set them: `missing` names the options that do.
        processes: worker processes; None: one per core.
        memory: total GB; None if unknown.
        overhead: CPU seconds per run, process and task, including Java; None: as measured in trials.
        seconds: wall time before the first step, and between two steps.
        disk: total GB of disk, if the engine charges for it.
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
    """A sum with its 80% interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(*(factor * value for value in self))


@dataclass(frozen=True)
class Cost:
    """A step's use of a resource for one kind of work: `each` ± `margin`, in the resource's unit, times `count`."""

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
    """Return how much of a resource a step uses per process, run, unit and row, each with its margin."""
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
    elif step not in _CONSTANTS:  # trials of one size only
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
    """Return the wall seconds of a run that has its cores to itself; None if the number of cores is unknown.

    All processes do their one-time work in parallel; the driver's work, including per-task work, is serial; units are
    spread over the cores, and the last round leaves some cores idle.
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
    """Add what machines cost beyond their work: idle cores, memory and disks."""
    if seconds and workers.cores:
        margin = (seconds.high - seconds.low) / 2
        idle = seconds.value - add_up(cost for cost in costs if cost.kind == CPU).value / workers.cores
        costs += [Cost(IDLE, CPU, "cores", workers.cores, idle, _CONSTANT * idle)] if idle > 0 else []
        for kind, size in ((MEMORY, workers.memory), (DISK, workers.disk)):
            costs += [Cost("all", kind, "GB", size, seconds.value, margin)] if size else []
