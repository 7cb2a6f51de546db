"""The rows still in when balancing begins, by a run's own recipe or a changed one, from the run's tables alone.

In: a finished run, and a recipe that `changed_recipe` gave. Out: `DecidedRows`: a verdict for every row (int16, as of
`curate.decide.state`), the survivors' matches, and how many of them match each entry. What decides are the kernels of the
run itself, so the result is what a run would find, and only what a change affects is decided again:

    balance           verdicts as recorded
    dedup             rules as recorded, duplicates found again
    rules             rules applied again; duplicates found again if other rows reach deduplication

Duplicates by equal keys are found once among all rows, and then resolved for any of them; groups of near ones depend on
which rows there are, and are found again each time. Where rows were forgotten, the fractions of top rules are of fewer
rows, and links between near ones may be gone: what depends on that is decided again, whatever changes. Memory: about 70
bytes a row of the pool, and 20 bytes a survivor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import schema
from curate.ask.query import find_run
from curate.decide import dedup, rounds
from curate.decide.decisions import alive_matches, read_verdicts
from curate.decide.settings import DecideSettings
from curate.decide.state import ALIVE, UnitState
from curate.errors import RecipeError, RunError
from curate.numeric.arrays import I64
from curate.pool.plan import Unit
from curate.process import in_threads
from curate.recipe.deciding import Top
from curate.recipe.recipe import Recipe
from curate.run.context import RunContext
from curate.run.opened import open_context
from curate.schema import CODES
from curate.store.facts import read_facts
from curate.store.tables import UnitTables
from curate.whatif.kept_columns import KeptColumnsStore

_DUPLICATE, _CONTAMINATED, _FORGOTTEN = (CODES[n] for n in (schema.DUPLICATE, schema.CONTAMINATED, schema.FORGOTTEN))
_REACHED = (ALIVE, CODES[schema.BALANCE], _DUPLICATE)  # verdicts of rows that reached deduplication


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as its tables record it."""

    context: RunContext  # the run
    units: list[Unit]  # in order
    states: list[UnitState]  # one a unit, after the draws: alive is what was kept
    t: int | None  # of balance; None without
    # By the rules before the first top rule, the states after them: a sweep over a fraction needs them again.
    opened: dict[str, list[UnitState]] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The run's own recipe."""
        return self.context.recipe

    @property
    def has_forgotten(self) -> bool:
        """Whether some rows are forgotten."""
        return any((state.verdicts == _FORGOTTEN).any() for state in self.states)

    def tables(self, unit: Unit) -> UnitTables:
        """Return a unit's tables."""
        return UnitTables(self.context.store, unit.index)

    def settings(self, recipe: Recipe) -> DecideSettings:
        """Return what deciding by a changed recipe reads, without the evaluation set, which only a run has.

        Raises:
            RecipeError: a rule is wrong, or a column is not measured.
        """
        dedup_alone = recipe.dedup.model_copy(update={"against": None})
        return DecideSettings.of(replace(self.context, recipe=recipe.model_copy(update={"dedup": dedup_alone})))


@dataclass(frozen=True)
class DecidedRows:
    """The rows still in when balancing begins."""

    recipe: Recipe  # the changed one
    settings: DecideSettings  # of deciding by it
    states: list[UnitState]  # one a unit, after deduplication
    matches: list[pa.ListArray]  # of each unit, the entry ids of its survivors (list<int32>); none without `match`
    counts: I64  # int64[entries], the survivors that match each; empty without `match`


def open_finished(url: str) -> FinishedRun:
    """Open a finished run, local or remote.

    Raises:
        RecipeError: there is no run, or its recipe is not one that this version knows.
        RunError: the run is not finished, or its tables are damaged.
    """
    found = find_run(url)
    folder = KeptColumnsStore(found.url, found.storage)
    context, units = open_context(folder)
    states = list(in_threads(lambda unit: _recorded(context.recipe, UnitTables(folder, unit.index), unit), units))
    return FinishedRun(context, units, states, read_facts(folder).t)


def find_survivors(run: FinishedRun, recipe: Recipe, repeats: dedup.Records | None = None) -> DecidedRows:
    """Return the rows still in when balancing begins by a changed recipe.

    Args:
        run: the run.
        recipe: as `changed_recipe` gives it.
        repeats: `all_repeats` of the recipe, where several recipes with the same deduplication are asked for.

    Raises:
        RecipeError: a rule is wrong, a column is not measured, or rows would have to be compared with an evaluation set.
    """
    settings = run.settings(recipe)
    has_top = any(isinstance(rule, Top) for rule in recipe.rules.values())
    if _has_same_rules(run.recipe, recipe) and not (run.has_forgotten and has_top):
        states = [_revive(state, (CODES[schema.BALANCE], _DUPLICATE)) for state in run.states]
    else:
        states = _apply_rules(run, settings, recipe)
    before = (run.recipe.dedup.by, run.recipe.dedup.prefer)
    reached = [among(state.verdicts, _REACHED) for state in run.states]
    if (
        before == (recipe.dedup.by, recipe.dedup.prefer)
        and not (run.has_forgotten and recipe.dedup.near)
        and all(np.array_equal(state.alive, rows) for state, rows in zip(states, reached, strict=True))
    ):
        pairs = zip(states, run.states, strict=True)
        states = [state.drop(was.verdicts == _DUPLICATE, _DUPLICATE) for state, was in pairs]
    elif repeats is None:
        states = rounds.deduplicate(settings, states)
    else:
        states = rounds.drop_repeats(settings, states, repeats)
    if not recipe.match:
        return DecidedRows(recipe, settings, states, [], np.zeros(0, np.int64))
    matches = list(in_threads(lambda state: alive_matches(settings, state), states))
    return DecidedRows(recipe, settings, states, matches, rounds.count_survivors(settings, states))


def all_repeats(run: FinishedRun, recipe: Recipe) -> dedup.Records | None:
    """Return the rows that share a key of the recipe's deduplication with another, whatever the rules; None with near passes."""
    if recipe.dedup.near:
        return None
    out = (CODES[schema.FAILED], _FORGOTTEN)
    readable = [
        UnitState(state.unit, np.where(among(state.verdicts, out), state.verdicts, np.int16(ALIVE)))
        for state in run.states
    ]
    return rounds.find_repeats(run.settings(recipe), readable)


def among(verdicts: npt.NDArray[np.int16], codes: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which verdicts are among a few codes: numpy's `isin` takes ten times as long for so few."""
    return np.asarray(np.logical_or.reduce([verdicts == code for code in codes]))


def _recorded(recipe: Recipe, tables: UnitTables, unit: Unit) -> UnitState:
    """Return the unit's state by its decisions."""
    try:
        return UnitState(unit, read_verdicts(tables.read("decisions", ["rule"])["rule"], list(recipe.rules)))
    except ValueError:
        raise RunError(
            f"{tables.store.url}: {tables.file('decisions')} names rules that the run does not have"
        ) from None


def _revive(state: UnitState, codes: Sequence[int]) -> UnitState:
    """Return the state as it was before rows were dropped with these verdicts."""
    return UnitState(state.unit, np.where(among(state.verdicts, codes), np.int16(ALIVE), state.verdicts))


def _has_same_rules(old: Recipe, new: Recipe) -> bool:
    """Return whether the same rows reach deduplication by both."""
    return list(old.rules.items()) == list(new.rules.items()) and old.dedup.against == new.dedup.against


def _apply_rules(run: FinishedRun, settings: DecideSettings, recipe: Recipe) -> list[UnitState]:
    """Return the states after rules and what comes before deduplication; what was taken out on request stays out."""
    first = settings.segments[0]
    key = repr((first.rules, first.top is None))
    if key not in run.opened:
        run.opened.clear()
        run.opened[key] = rounds.open_states(settings, run.units)
    states, unknown = [], 0
    for state, was in zip(rounds.apply_tops(settings, run.opened[key]), run.states, strict=True):
        forgotten = was.verdicts == _FORGOTTEN
        without = replace(state, verdicts=np.where(forgotten, np.int16(_FORGOTTEN), state.verdicts))
        if recipe.dedup.against:
            without = without.drop(was.verdicts == _CONTAMINATED, _CONTAMINATED)
            unknown += int(np.sum(without.alive & ~among(was.verdicts, _REACHED)))
        states.append(without)
    if unknown:
        raise RecipeError(
            f"{unknown:,} rows reach dedup.against that the run did not compare with its evaluation set, and only a run can; "
            "accepted: rules that let no other rows through, dedup.against=null, or `curate run RECIPE --reuse DIR`"
        )
    return states
