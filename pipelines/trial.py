"""Measures the cost of a run: whole runs over parts of the pool, on the local engine, in a temporary folder.

In: a prepared run. Out: the resources that each of four runs used, by step: one part, in a fresh process; the same part
again; parts spread over the pool, one unit each; and the same parts in one unit. The costs of a process, a run, a unit
and a row follow from the differences. The runs write no captions, and scale the sizes of a selection to the parts.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from math import ceil
from resource import RUSAGE_SELF, getrusage

from curate.ask.costs.model import CPU, CalibrationRun, Trials, Work, add_waiting, find_seconds, predict
from curate.ask.costs.prices import CostPlan, Prices
from curate.ask.whatif.estimate import Estimate, Watch, fetched, scaled, share_left, size_of, spread
from curate.base.errors import RunError
from curate.base.meter import METER, START
from curate.base.process import temporary_folder
from curate.base.stages import KEPT
from curate.pool.plan import UNIT_BYTES, UNIT_ROWS, Plan, Unit
from curate.run.units import WorkerLocation
from curate.store.facts import UsedFacts, read_facts
from curate.store.layout import SUCCESS_FILE
from curate.store.store import RunStore
from pipelines.claim import Prepared, claimed
from pipelines.driver import run
from pipelines.engines.choose import choose_engine

_PARTS = 64  # more parts do not improve the estimate
_LONG = 60  # CPU seconds of the third run from which the fourth run is skipped


def find_trials(prepared: Prepared, measure: int | None, watch: Watch = lambda *_: nullcontext()) -> Trials | None:
    """Run trials on `measure` rows, or use a finished run instead.

    `watch` shows their progress. Returns None if the pool has nothing to measure, or if `measure` is None and there is
    no finished run. Raises RecipeError if a model needs a device that this machine lacks.
    """
    for folder in (prepared.context.store, prepared.context.reuse) if measure is None else ():
        if folder and folder.exists(SUCCESS_FILE) and (facts := read_facts(folder)).used:
            trial = CalibrationRun.of(facts)
            return Trials(trial, trial, trial, trial, trial.value(START, CPU), run=folder.url)
    if measure is None:
        return None
    context, units = fetched(prepared.context, prepared.plan.units)
    units = [unit for unit in units if any(not part.fault for part in unit.parts)]
    if not units:
        return None
    return _run_trials(replace(prepared, context=context), units, measure, share_left(context, units) == 0, watch)


def plan_costs(prepared: Prepared, trials: Trials, expected: Estimate, rows: int | None, prices: Prices) -> CostPlan:
    """Return a run's resources, from its expected yield. For a pool of `rows`, units have maximum size."""
    context, units, workers = prepared.context, prepared.plan.units, prepared.engine.workers
    count: float = len(units)
    if rows:
        size = trials.bytes or size_of(units) / max(1, trials.scattered.rows) if context.pool.has_images else 1
        count = max(1, ceil(rows * size / (UNIT_BYTES if context.pool.has_images else UNIT_ROWS)[1]))
    if workers.overhead is None:  # the engine runs on this machine
        workers = workers._replace(memory=1024 * getrusage(RUSAGE_SELF).ru_maxrss / 1e9)
    work = Work(expected.rows, expected.verdicts[KEPT], count, share_left(context, units))
    costs = predict(trials, work, workers)
    seconds = find_seconds(costs, work, workers)
    add_waiting(costs, seconds, workers)
    scheme, _, remote = context.store.url.partition("://")
    store = scheme if remote else ""
    return CostPlan(costs, seconds, work, workers, store, trials, prices, expected.requests)


def _run_trials(prepared: Prepared, units: Sequence[Unit], rows: int, is_reused: bool, watch: Watch) -> Trials:
    """Measure about `rows` rows of these units, or whole units if everything comes from a reused run."""
    start = sum(value for (_, kind), value in METER.take().items() if kind == CPU) - METER.compiling
    parts = units if is_reused else [replace(unit, parts=(part,)) for unit in units for part in unit.parts]
    with temporary_folder() as aside:
        number = iter(range(4))
        base = aside if prepared.context.store.is_local else f"memory://{aside}"  # counts requests

        def measure(measured: Sequence[Unit]) -> CalibrationRun:
            folder = RunStore(f"{base}/{next(number)}")
            with watch(folder, len(measured)):
                return _run(prepared, measured, is_reused, size_of(measured) / max(1, size_of(units)), folder)

        first = parts[len(parts) // 2 : len(parts) // 2 + 1]
        first_run, second_run = measure(first), measure(first)
        n = min(_PARTS, len(parts), max(4, ceil(rows / max(1, second_run.rows))))
        chosen = spread(parts, n)
        began = time.process_time()
        scattered = adjacent = measure(chosen)
        if not is_reused and time.process_time() - began < _LONG:
            by_source = {unit.source: unit for unit in chosen}
            for source, unit in by_source.items():
                of_source = chain.from_iterable(other.parts for other in chosen if other.source == source)
                by_source[source] = replace(unit, parts=tuple(of_source))
            adjacent = measure(list(by_source.values()))
    size = size_of(chosen) / max(1, scattered.rows)
    return Trials(first_run, second_run, scattered, adjacent, start, size, METER.compiling)


def _run(prepared: Prepared, units: Sequence[Unit], is_reused: bool, share: float, folder: RunStore) -> CalibrationRun:
    numbered = [replace(unit, index=index) for index, unit in enumerate(units)]
    recipe = prepared.context.recipe.model_copy(update={"captions": None, "max_failed": 1.0, "max_missing": 1.0})
    context = replace(prepared.context, store=folder, place=WorkerLocation.THIS_PROCESS, share=share)
    context = context if is_reused else replace(context, reuse=None)
    for attempt in (scaled(recipe, share), recipe.model_copy(update={"balance": None, "sample": None})):
        context = replace(context, recipe=attempt, store=folder)
        plan, engine = Plan(numbered, context.pool), choose_engine(())
        trial = replace(prepared, context=context, plan=plan, engine=engine, sent=attempt, inputs={}, finished=False)
        try:
            with claimed(trial):
                run(trial)
            break
        except RunError:  # too few rows for the size
            if attempt.selection is None:
                raise
            folder = RunStore(f"{folder.url}-all")
    facts = CalibrationRun.of(read_facts(context.store))
    tail = sum(value for (_, kind), value in METER.take().items() if kind == CPU)  # after the last record
    published = facts.used.get("publish", UsedFacts(step="publish"))
    published = published.model_copy(update={"cpu": published.cpu + tail})
    return facts._replace(used={**facts.used, "publish": published})
