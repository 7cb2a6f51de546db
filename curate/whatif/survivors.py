"""The rows that stand when balancing begins, by a run's own recipe or a changed one, from the run's tables alone.

In: a finished run, and a recipe that `changed_recipe` gave. Out: `Survivors`: a verdict for every row (int16, as of
`curate.decide.state`), the survivors' matches, and how many of them match each entry. What decides are the kernels of the
run itself, so the result is what a run would find, and only what a change touches is decided again:

    balance           verdicts as recorded
    dedup             rules as recorded, duplicates found again
    rules             rules applied again; duplicates found again if other rows reach deduplication

Duplicates by equal keys are found once among all rows, and then resolved for any of them; groups of near ones depend on
which rows there are, and are found anew each time. Where rows were forgotten, the fractions of top rules are of fewer rows,
and links between near ones may be gone: what depends on that is decided again, whatever changes. Memory: about 70 bytes a row of the pool, and 20 bytes a survivor.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import schema
from curate.ask.query import find_run
from curate.decide import balance, dedup, local
from curate.decide import state as ballot
from curate.decide.state import ALIVE, UnitState, read_verdicts
from curate.errors import RecipeError, RunError
from curate.metadata.unit import MatchSettings, load_entries
from curate.pool.plan import Unit
from curate.process import in_threads
from curate.recipe.recipe import Recipe
from curate.recipe.rules import Top
from curate.run.context import RunContext
from curate.run.opened import open_ledger
from curate.schema import CODES
from curate.store.facts import read_facts
from curate.whatif.memory import ReadFolder, RememberingJob

I64 = npt.NDArray[np.int64]

_DUPLICATE, _CONTAMINATED, _FORGOTTEN = (CODES[n] for n in (schema.DUPLICATE, schema.CONTAMINATED, schema.FORGOTTEN))
_REACHED = (ALIVE, CODES[schema.BALANCE], _DUPLICATE)  # verdicts of rows that reached deduplication


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as its tables tell it.

    Attributes:
        context: the run.
        units: in order.
        ballots: one a unit, after the draws: alive is what was kept.
        t: rows that an entry may have; None without balance.
        opened: by the rules before the first top rule, the ballots after them: a sweep over a fraction needs them again.
    """

    context: RememberingJob
    units: list[Unit]
    ballots: list[UnitState]
    t: int | None
    opened: dict[str, list[UnitState]] = field(default_factory=dict)

    @property
    def forgotten(self) -> bool:
        """Whether some rows are forgotten."""
        return any((b.verdicts == _FORGOTTEN).any() for b in self.ballots)


@dataclass(frozen=True)
class DecidedRows:
    """What stands when balancing begins.

    Attributes:
        context: the run with the changed recipe.
        ballots: one a unit, after deduplication.
        matches: of each unit, the entry ids of its survivors (list<int32>); none without `match`.
        counts: int64[entries], the survivors that match each; empty without `match`.
    """

    context: RunContext
    ballots: list[UnitState]
    matches: list[pa.ListArray]
    counts: I64


def open_past(url: str) -> FinishedRun:
    """Opens a finished run, local or remote.

    Raises:
        RecipeError: there is no run, or its recipe is not one that this version knows.
        RunError: the run is not finished, or its tables are damaged.
    """
    found = find_run(url)
    folder = ReadFolder(found.url, found.storage)
    context, units = open_ledger(folder)
    remembering = RememberingJob(**{name: getattr(context, name) for name in RunContext.__dataclass_fields__})
    ballots = list(in_threads(partial(_recorded, remembering), units))
    return FinishedRun(remembering, units, ballots, read_facts(folder).t)


def find_survivors(past: FinishedRun, recipe: Recipe, repeats: dedup.Records | None = None) -> DecidedRows:
    """What stands when balancing begins by a changed recipe.

    Args:
        past: the run.
        recipe: as `changed_recipe` gives it.
        repeats: `all_repeats` of the recipe, where several recipes with the same deduplication are asked.

    Raises:
        RecipeError: a rule is wrong, a column is not measured, or rows would have to be compared with an evaluation set.
    """
    context = _without_evaluation(past.context, recipe)
    context.check()
    tops = any(isinstance(rule, Top) for rule in recipe.rules.values())
    if _reaches_alike(past.context.recipe, recipe) and not (past.forgotten and tops):
        ballots = [_revive(b, (CODES[schema.BALANCE], _DUPLICATE)) for b in past.ballots]
    else:
        ballots = _apply_rules(past, context, recipe)
    before = (past.context.recipe.dedup.by, past.context.recipe.dedup.prefer)
    reached = [among(b.verdicts, _REACHED) for b in past.ballots]
    if (
        before == (recipe.dedup.by, recipe.dedup.prefer)
        and not (past.forgotten and recipe.dedup.near)
        and all(np.array_equal(b.alive, rows) for b, rows in zip(ballots, reached, strict=True))
    ):
        pairs = zip(ballots, past.ballots, strict=True)
        ballots = [b.drop(was.verdicts == _DUPLICATE, _DUPLICATE) for b, was in pairs]
    elif repeats is None:
        ballots = local.deduplicate(context, ballots)
    else:
        ballots = local.drop_repeats(context, ballots, repeats)
    if not recipe.match:
        return DecidedRows(replace(past.context, recipe=recipe), ballots, [], np.zeros(0, np.int64))
    matches = list(in_threads(partial(ballot.alive_matches, context), ballots))
    entries = len(load_entries(MatchSettings.of(context)).entries)
    counts = sum(in_threads(lambda m: balance.entry_counts(m, None, entries), matches), np.zeros(entries, np.int64))
    return DecidedRows(replace(past.context, recipe=recipe), ballots, matches, counts)


def all_repeats(past: FinishedRun, recipe: Recipe) -> dedup.Records | None:
    """The rows that share a key of the recipe's deduplication with another, whatever rules say; None with near passes."""
    if recipe.dedup.near:
        return None
    context = _without_evaluation(past.context, recipe)
    context.check()
    out = (CODES[schema.FAILED], _FORGOTTEN)
    readable = [UnitState(b.unit, np.where(among(b.verdicts, out), b.verdicts, np.int16(ALIVE))) for b in past.ballots]
    return local.find_repeats(context, readable)


def among(verdicts: npt.NDArray[np.int16], codes: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which verdicts are among a few codes: numpy's `isin` takes ten times as long for so few."""
    return np.asarray(np.logical_or.reduce([verdicts == code for code in codes]))


def _recorded(context: RunContext, unit: Unit) -> UnitState:
    """The unit's ballot as its decisions tell it."""
    rules = context.read("decisions", unit, ["rule"])["rule"]
    try:
        return UnitState(unit, read_verdicts(rules, list(context.recipe.rules)))
    except ValueError:
        raise RunError(
            f"{context.store.url}: {context.table('decisions', unit)} names rules that the run does not have"
        ) from None


def _revive(b: UnitState, codes: Sequence[int]) -> UnitState:
    """The ballot as it was before rows were dropped with these verdicts."""
    return UnitState(b.unit, np.where(among(b.verdicts, codes), np.int16(ALIVE), b.verdicts))


def _without_evaluation(context: RememberingJob, recipe: Recipe) -> RememberingJob:
    """The job by a changed recipe, without the evaluation set, which only a run has."""
    dedup_alone = recipe.dedup.model_copy(update={"against": None})
    return replace(context, recipe=recipe.model_copy(update={"dedup": dedup_alone}))


def _reaches_alike(old: Recipe, new: Recipe) -> bool:
    """Whether the same rows reach deduplication by both."""
    return list(old.rules.items()) == list(new.rules.items()) and old.dedup.against == new.dedup.against


def _apply_rules(past: FinishedRun, context: RunContext, recipe: Recipe) -> list[UnitState]:
    """The ballots after rules and what comes before deduplication; what was taken out on request stays out."""
    first = context.segments[0]
    key = repr((first.rules, first.top is None))
    if key not in past.opened:
        past.opened.clear()
        past.opened[key] = local.open_ballots(context, past.units)
    ballots, unknown = [], 0
    for b, was in zip(local.apply_tops(context, past.opened[key]), past.ballots, strict=True):
        forgotten = was.verdicts == _FORGOTTEN
        kept_out = replace(b, verdicts=np.where(forgotten, np.int16(_FORGOTTEN), b.verdicts))
        if recipe.dedup.against:
            kept_out = kept_out.drop(was.verdicts == _CONTAMINATED, _CONTAMINATED)
            unknown += int(np.sum(kept_out.alive & ~among(was.verdicts, _REACHED)))
        ballots.append(kept_out)
    if unknown:
        raise RecipeError(
            f"{unknown:,} rows reach dedup.against that the run did not compare with its evaluation set, and only a run can; "
            "accepted: rules that let no other rows through, dedup.against=null, or `curate run RECIPE --reuse DIR`"
        )
    return ballots
