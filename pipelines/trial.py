"""Runs parts of a pool aside, for what a run costs: whole runs on the local engine, in a temporary folder.

In: a prepared run. Out: what each of four runs used, by step, whose differences tell what a process, a run, a unit and
a row take: one part, in a process that has done nothing yet; the same part again; parts spread over the pool, a unit
each; and these together in one unit. No caption is written, and a selection's sizes are scaled to the part.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil

from curate.ask.costs.model import CPU, Trial, Trials, Work
from curate.ask.costs.page import Plan as CostPlan
from curate.ask.whatif.estimate import Estimate, fetched, share_left
from curate.base.errors import RunError
from curate.base.meter import METER
from curate.base.process import temporary_folder
from curate.base.schema import KEPT
from curate.pool.plan import UNIT_BYTES, UNIT_ROWS, Plan, Unit
from curate.recipe.deciding import SELECTIONS
from curate.recipe.recipe import Recipe
from curate.run.place import Place
from curate.store.facts import UsedFacts, read_facts
from curate.store.layout import SUCCESS_FILE
from curate.store.store import RunStore
from curate.store.timings import START
from pipelines.claim import Prepared, claimed
from pipelines.driver import run
from pipelines.engines.choose import choose_engine

_ROWS, _IMAGES = 100_000, 5_000  # that are measured where nobody says how many: some seconds of work, without models
_PARTS = 64  # more say nothing more
_LONG = 60  # seconds of CPU that the third run takes where a fourth would be too long to wait for


def run_trials(prepared: Prepared, units: Sequence[Unit], rows: int, is_lent: bool) -> Trials:
    """Measure about so many rows of these units, spread over them.

    `is_lent`: all that is measured comes from the run to reuse, whose units are taken whole.
    """
    start = sum(value for (_, kind), value in METER.take().items() if kind == CPU)
    parts = units if is_lent else [replace(unit, parts=(part,)) for unit in units for part in unit.parts]
    with temporary_folder() as folder:
        number = iter(range(4))

        def measure(some: Sequence[Unit]) -> Trial:
            return _run(prepared, some, is_lent, _size(some) / max(1, _size(units)), f"{folder}/{next(number)}")

        first = parts[len(parts) // 2 : len(parts) // 2 + 1]
        cold, began = measure(first), time.process_time()
        warm = measure(first)
        n = min(_PARTS, len(parts), max(4, ceil(rows / max(1, warm.rows))))
        spread = [parts[(2 * i + 1) * len(parts) // (2 * n)] for i in range(n)]
        apart, began = measure(spread), time.process_time()
        in_one = {unit.source: unit for unit in spread}
        for source, unit in in_one.items():
            of_source = chain.from_iterable(other.parts for other in spread if other.source == source)
            in_one[source] = replace(unit, parts=tuple(of_source))
        is_long = is_lent or time.process_time() - began > _LONG
        together = apart if is_long else measure(list(in_one.values()))
    return Trials(cold, warm, apart, together, start)


@dataclass(frozen=True)
class Costs:
    """What is known of a run's costs before its yield is.

    Attributes:
        prepared: the run.
        trials: what they are told from; `measured` says it in words.
        left: the share of the pool that is to be measured.
        rows: of the pool, whose units are then as large as can be; None: as the estimate says.
    """

    prepared: Prepared
    trials: Trials
    measured: str
    left: float
    rows: int | None

    def plan(self, expected: Estimate, store: str) -> CostPlan:
        """Return what the run uses, by its expected yield and the kind of its store."""
        context, units = self.prepared.context, self.prepared.plan.units
        count: float = len(units)
        if self.rows:
            size = _size(units) / (context.pool.rows or expected.sampled) if context.pool.has_images else 1
            count = max(1.0, ceil(self.rows * size / (UNIT_BYTES if context.pool.has_images else UNIT_ROWS)[1]))
        work = Work(expected.rows, expected.verdicts[KEPT], count, self.left)
        return CostPlan.of(self.trials, work, self.prepared.engine.workers, store)


def find_costs(prepared: Prepared, measure: int | None, rows: int | None) -> Costs | None:
    """Find what a run's costs are told from: trials of `measure` rows, or a finished run; None where there is nothing.

    Raises RecipeError where a model needs a device that this machine does not have.
    """
    context = prepared.context
    left = share_left(context, prepared.plan.units)
    for folder in (context.store, context.reuse) if measure is None else ():
        if folder and folder.exists(SUCCESS_FILE) and (facts := read_facts(folder)).used:
            trial = Trial.of(facts)
            trials = Trials(trial, trial, trial, trial, trial.value(START, CPU))
            return Costs(prepared, trials, f"{trial.rows:,} rows of {folder.url}", left, rows)
    context, units = fetched(context, prepared.plan.units)
    units = [unit for unit in units if any(not part.fault for part in unit.parts)]
    if not units:
        return None
    measure = measure or (_IMAGES if context.pool.has_images else _ROWS)
    trials = run_trials(replace(prepared, context=context), units, measure, left == 0)
    return Costs(prepared, trials, f"{trials.rows:,} rows measured aside", left, rows)


def _size(units: Sequence[Unit]) -> int:
    return sum(part.size for unit in units for part in unit.parts)


def _run(prepared: Prepared, units: Sequence[Unit], is_lent: bool, share: float, folder: str) -> Trial:
    """Run the recipe on these units; `share` is what they are of the pool."""
    numbered = [replace(unit, index=index) for index, unit in enumerate(units)]
    context, engine = prepared.context, choose_engine(())
    recipe = context.recipe.model_copy(update={"captions": None, "max_failed": 1.0, "max_missing": 1.0})
    reuse = context.reuse if is_lent else None
    context = replace(context, store=RunStore(folder), reuse=reuse, place=Place.THIS_PROCESS)
    for attempt in (_scaled(recipe, share), recipe.model_copy(update={"balance": None, "sample": None})):
        of_attempt = replace(context, recipe=attempt)
        try:
            trial = replace(
                prepared,
                context=of_attempt, plan=Plan(numbered, context.pool), engine=engine, sent=attempt, inputs={},
                finished=False,
            )  # fmt: skip
            with claimed(trial):
                run(trial)
            break
        except RunError:  # a size that so few rows cannot reach
            if attempt.selection is None:
                raise
    facts, after = read_facts(context.store), METER.take()
    used = {of.step: of for of in facts.used}
    tail = sum(value for (_, kind), value in after.items() if kind == CPU)  # what follows the last record
    used["publish"] = used.get("publish", UsedFacts(step="publish"))
    used["publish"] = used["publish"].model_copy(update={"cpu": used["publish"].cpu + tail})
    return replace(Trial.of(facts), used=used)


def _scaled(recipe: Recipe, share: float) -> Recipe:
    """Return the recipe with a selection's sizes, which are of the pool, as of a share of it."""
    if recipe.selection is None:
        return recipe
    key, section = recipe.selection
    sizes = {name: getattr(section, name) for name in SELECTIONS.find(key).sizes_of if getattr(section, name)}
    scaled = section.model_copy(update={name: max(1, round(rows * share)) for name, rows in sizes.items()})
    return recipe.model_copy(update={key: scaled})
