"""The rows left when balancing begins, by a run's own recipe or a changed one, and what a selection keeps of them.

In: a finished run, and its recipe with overrides; changes that would need the pool are refused, with the command to run
instead. Out: `DecidedRows`, and an `Expectation`. The run's own kernels decide only what a change affects: duplicates
are found again if dedup changes or other rows reach it; top rules and near-duplicates also if rows were forgotten.
Equal keys are detected once among all rows, and then resolved for any subset. Memory: about 70 bytes per row of the
pool, and 20 bytes per survivor.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any, ClassVar, NamedTuple, Self

import numpy as np

from curate.ask.query import find_run
from curate.base import stages
from curate.base.errors import RecipeError, RunError, UnknownColumn
from curate.base.numeric.arrays import F64, I16, I64, Mask
from curate.base.process import in_threads
from curate.base.stages import CODES
from curate.base.wording import did_you_mean
from curate.decide.apply_rules import Answers, apply_later_rules, apply_segments, start_unit
from curate.decide.decide_rows import drop_duplicate_captions
from curate.decide.dedup import exact
from curate.decide.deduplicate import deduplicate, drop_records, find_records, records_again
from curate.decide.draw.entry_sums import sparse_sums
from curate.decide.draw.inclusion import fixed_point
from curate.decide.draw.selection import Choice, RowsLeft, SelectionRun, texts_error
from curate.decide.rules.top import TopSearch
from curate.decide.select_rows import count_alive, count_repeats
from curate.decide.settings import DecideSettings
from curate.decide.unit_state import SURVIVING, UnitState, read_verdicts
from curate.pool.plan import Unit
from curate.recipe.deciding import SELECTIONS
from curate.recipe.measure import measured_by
from curate.recipe.recipe import Recipe, change_recipe
from curate.run.context import RunContext, check_signals, open_context
from curate.run.in_process import InProcessUnits
from curate.store.facts import RunFacts, read_facts
from curate.store.store import RunStore

_DECIDING = ("derive", "rules", "dedup")
_HINT = (
    "accepted: balance.t=…, balance.rows=…, balance.tail_share=…, balance=null, sample.rows=…, sample=…, "
    "rules.NAME=… (an expression, {top: f, of: column}, {rows: N, of: column}, or null to remove it), "
    "rules.NAME.top=…, rules.NAME.rows=…, derive.NAME=…, dedup.by=…, dedup.prefer=…"
)
# Verdicts of the rows left when the last choice begins
LEFT = (SURVIVING, CODES[stages.OTHER_TEXT], CODES[stages.SELECTION])
_DUPLICATE, _CONTAMINATED, _FORGOTTEN = (CODES[n] for n in (stages.DUPLICATE, stages.CONTAMINATED, stages.FORGOTTEN))


@dataclass(frozen=True)
class _ReadOnlyStore(RunStore):
    is_read_only: ClassVar[bool] = True

    def spool(self) -> IO[bytes]:
        return tempfile.TemporaryFile()  # unnamed, on the local disk


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as recorded in its tables."""

    context: RunContext
    units: list[Unit]
    states: list[UnitState]  # one per unit, after the draws: surviving rows are the kept ones
    facts: RunFacts
    # The rules before the first top rule → the states after them, which a sweep over a fraction reuses
    opened: dict[str, list[UnitState]] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        return self.context.recipe

    @property
    def reached(self) -> tuple[int, ...]:
        """The verdicts of rows that reached deduplication."""
        position = self.recipe.dedup_place
        later = () if position is None else range(position + 1, len(self.recipe.rules))
        return (*LEFT, _DUPLICATE, *later)

    @property
    def has_forgotten(self) -> bool:
        return any((state.verdicts == _FORGOTTEN).any() for state in self.states)

    def settings(self, recipe: Recipe) -> DecideSettings:
        """Return the settings to decide by a changed recipe, without the evaluation set, which only a run has."""
        dedup_alone = recipe.dedup.model_copy(update={"against": None})
        context = replace(self.context, recipe=recipe.model_copy(update={"dedup": dedup_alone}))
        try:
            return DecideSettings.of(context)
        except UnknownColumn as error:
            reason = f"if {error.column} is a column of your pool, this run did not store it, because no rule uses it"
            run = f"curate run RECIPE --out NEW --reuse {context.store.url} --set derive.NAME={error.column}"
            remedy = f"`{run}` stores it as NAME and measures nothing again, or `curate plan RECIPE --set …` estimates"
            raise RecipeError(f"{error}; {reason}: {remedy}{measured_by(error.column)}") from None

    def changed(self, overrides: Sequence[str]) -> Recipe:
        """Return the recipe with overrides. Raises RecipeError, also for changes that need more than the tables."""
        accepted = (*_DECIDING, *SELECTIONS.kinds())
        for override in overrides:
            section = override.partition("=")[0].partition(".")[0]
            if section in accepted:
                continue
            reason = f"{section!r} is not a section that can be changed; {did_you_mean(section, accepted)}"
            if section == "seed":
                reason = "a seed changes which rows are drawn, not the expected number of rows; "
            elif section in Recipe.full().model_fields:
                reason = f"{section} cannot be changed without a run (`curate run RECIPE --reuse DIR --set …`); "
            raise RecipeError(f"--set {override}: {reason}{_HINT}")
        changed = change_recipe(self.recipe, overrides)
        if changed.dedup.against not in (self.recipe.dedup.against, None):
            reason = "whatif cannot compare images with another evaluation set; only a run can"
            raise RecipeError(f"dedup.against: {reason}; accepted: the run's own value, or null")
        return changed


@dataclass(frozen=True)
class DecidedRows:
    """The rows left when the last choice begins."""

    context: RunContext
    recipe: Recipe
    settings: DecideSettings
    states: list[UnitState]  # one per unit, after deduplication and the rules that follow it
    rows: list[RowsLeft]  # the rows left in each unit; the columns read stay in memory
    counts: I64  # int64[entries], the matching rows left; empty without `match`
    thresholds: Mapping[str, TopSearch]  # the search of each top rule that was applied
    fraction: float = 1.0  # share of the pool's rows in these units

    @classmethod
    def of(
        cls, units: InProcessUnits, settings: DecideSettings, answers: Answers, context: RunContext, recipe: Recipe
    ) -> Self:
        """Return the rows of units after deduplication, and apply the rules that follow it."""
        answers = [*answers, *apply_later_rules(units, settings)]
        thresholds = {search.rule: search for search in map(units.value, answers) if isinstance(search, TopSearch)}
        drop_duplicate_captions(units, settings)
        rows = [settings.rows_left(settings.tables(state.unit), state) for state in units.elements]
        decided = cls(context, recipe, settings, units.elements, rows, np.zeros(0, np.int64), thresholds)
        if not recipe.match:
            return decided
        for _ in in_threads(lambda of_unit: of_unit.matches, rows):
            pass  # read all before loading entries and counts, which reuse the memory freed by reading
        return replace(decided, counts=units.value(count_alive(units, settings, decided.selection_run.rows_left)))

    @property
    def selection_run(self) -> SelectionRun:
        """The run as a selection sees it: without progress messages. All choices have the same rows."""
        by_unit = {state.unit.index: rows for state, rows in zip(self.states, self.rows, strict=True)}
        rows_left = lambda _, state: by_unit[state.unit.index]  # noqa: E731
        return replace(self.settings.selection_run, place="", rows_left=rows_left, fraction=self.fraction)


def open_finished(url: str) -> FinishedRun:
    """Open a finished run. Raises like `find_run`, `check_signals` and `open_context`, and RunError on damage."""
    store = find_run(url)
    folder = _ReadOnlyStore(store.url, store.storage)
    facts = read_facts(folder)
    check_signals(folder, facts)
    context, units = open_context(folder)
    recipe = context.recipe

    def state_of(unit: Unit) -> UnitState:
        tables = context.unit_tables(unit)
        try:
            rules = tables.read("decisions", ["rule"])["rule"]
            return UnitState(unit, read_verdicts(rules, list(recipe.rules), recipe.selection and recipe.selection[0]))
        except ValueError:
            where = f"{store.url}: {tables.file('decisions')}"
            raise RunError(f"{where} contains rules that the run's recipe does not have") from None

    return FinishedRun(context, units, list(in_threads(state_of, units)), facts)


def find_survivors(run: FinishedRun, recipe: Recipe, repeats: exact.Records | None = None) -> DecidedRows:
    """Return the rows left when balancing begins, by a recipe from `FinishedRun.changed`.

    `repeats` is the result of `all_repeats`, shared by recipes with the same deduplication. Raises RecipeError if a
    rule is wrong, a column is not measured, or rows would have to be compared with an evaluation set.
    """
    settings = run.settings(recipe)
    looks_at_many = any(segment.top or segment.derive for segment in settings.segments)
    is_derived = any(segment.derive for segment in settings.segments)  # derived values are in no table of verdicts
    reached = [among(state.verdicts, run.reached) for state in run.states]
    units = InProcessUnits([], run.context)
    answers: Answers = []
    if has_same_rules(run.recipe, recipe) and not (run.has_forgotten and looks_at_many) and not is_derived:
        both = zip(run.states, reached, strict=True)
        units.elements = [UnitState(state.unit, np.where(rows, SURVIVING, state.verdicts)) for state, rows in both]
    else:
        answers = _apply_rules(run, units, settings, recipe)
    if (
        (run.recipe.dedup.by, run.recipe.dedup.prefer) == (recipe.dedup.by, recipe.dedup.prefer)
        and not (is_derived and recipe.dedup.prefer in settings.derived)
        and not (run.has_forgotten and recipe.dedup.near)
        and all(np.array_equal(state.surviving, rows) for state, rows in zip(units.elements, reached, strict=True))
    ):
        pairs = zip(units.elements, run.states, strict=True)
        units.elements = [state.drop(was.verdicts == _DUPLICATE, _DUPLICATE) for state, was in pairs]
    elif repeats is None:
        deduplicate(units, settings)
    else:
        drop_records(units, settings, units.pairs("Duplicates: records", records_again, repeats))
    return DecidedRows.of(units, settings, answers, run.context, recipe)


def all_repeats(run: FinishedRun, recipe: Recipe) -> exact.Records | None:
    """Return the rows that share a deduplication key with another row; None if that depends on the rules."""
    settings = run.settings(recipe)
    prefers_many = recipe.dedup.prefer in settings.derived and any(segment.derive for segment in settings.segments)
    if recipe.dedup.near or prefers_many:
        return None
    out = (CODES[stages.FAILED], _FORGOTTEN)
    verdicts = [np.where(among(state.verdicts, out), state.verdicts, np.int16(SURVIVING)) for state in run.states]
    readable = [UnitState(state.unit, codes) for state, codes in zip(run.states, verdicts, strict=True)]
    units = InProcessUnits(readable, run.context)
    records, _ = find_records(units, settings)
    parts = [part for _, part in units.value(records.items)]
    none = np.zeros(0, exact.record_type(len(recipe.dedup.by)))
    return np.sort(np.concatenate([none, *parts]), order=["unit", "row"], kind="stable")


def count_verdicts(states: Sequence[UnitState], recipe: Recipe) -> Counter[str]:
    """Return rows by rule, stage and selection; surviving rows count as `kept`."""
    names = {**{code: name for name, code in CODES.items()}, **dict(enumerate(recipe.rules))}
    if recipe.selection:
        names[CODES[stages.SELECTION]] = recipe.selection[0]
    counts: Counter[str] = Counter()
    for state in states:
        for code, rows in zip(*np.unique(state.verdicts, return_counts=True), strict=True):
            counts[names[int(code)]] += int(rows)
    return counts


def among(verdicts: I16, codes: Sequence[int]) -> Mask:
    """Return which verdicts are among a few codes, ten times as fast as numpy's `isin`."""
    return np.asarray(np.logical_or.reduce([verdicts == code for code in codes]))


def has_same_rules(old: Recipe, new: Recipe) -> bool:
    """Return whether the same rows reach deduplication in both."""
    first, second = (list(recipe.rules.items())[: recipe.dedup_place] for recipe in (old, new))
    same = first == second and list(old.derive.items()) == list(new.derive.items())
    return same and old.dedup.against == new.dedup.against


def _apply_rules(run: FinishedRun, units: InProcessUnits, settings: DecideSettings, recipe: Recipe) -> Answers:
    """Apply rules and all steps before deduplication; forgotten rows stay dropped."""
    first = settings.segments[0]
    key = repr((first.rules, first.dedup, settings.derived))
    if key not in run.opened:
        run.opened.clear()
        units.elements = list(run.units)
        units.then("Rules", start_unit, settings)
        run.opened[key] = units.elements
    units.elements = run.opened[key]
    answers = apply_segments(units, settings)
    states, unknown = [], 0
    for state, was in zip(units.elements, run.states, strict=True):
        without = replace(state, verdicts=np.where(was.verdicts == _FORGOTTEN, np.int16(_FORGOTTEN), state.verdicts))
        if recipe.dedup.against:
            without = without.drop(was.verdicts == _CONTAMINATED, _CONTAMINATED)
            unknown += int(np.sum(without.surviving & ~among(was.verdicts, run.reached)))
        states.append(without)
    if unknown:
        reason = "would reach dedup.against. The run did not compare them with its evaluation set; only a new run can"
        accepted = "rules that let only the run's rows through, dedup.against=null, or `curate run RECIPE --reuse DIR`"
        raise RecipeError(f"{unknown:,} rows {reason}; accepted: {accepted}")
    units.elements = states
    return answers


# ---- selection


class Expectation(NamedTuple):
    """The rows that a selection is expected to keep."""

    choice: Choice | None  # None if all remaining rows are kept
    rows: float  # the expected number of kept rows
    error: float  # one standard error of the number that a run draws
    inclusion: list[F64]  # per unit, π of its rows left (float64)
    shares: Mapping[str, float | None]  # see `Choice.shares`

    @property
    def values(self) -> Mapping[str, Any]:
        """The choice's numbers, see `Choice.values`."""
        return self.choice.values if self.choice else {}

    @property
    def is_uniform(self) -> bool:
        """Whether each row left has the same probability, and the number of rows is exact."""
        return self.choice is None or self.choice.is_uniform


def choose(survivors: DecidedRows, recipe: Recipe) -> Choice | None:
    """Return the choice of a recipe's selection among the rows left. Raises RunError like `Selection.choose`."""
    if recipe.selection is None:
        return None
    units = InProcessUnits(survivors.states, survivors.context)
    counts = units.get("Counts", np.asarray, survivors.counts) if recipe.match else None
    choice: Choice = units.value(recipe.selector.choose(units, recipe.selection[1], survivors.selection_run, counts))
    return choice


def expect(survivors: DecidedRows, choice: Choice | None) -> Expectation:
    """Return the rows that a choice is expected to keep."""
    if choice is None:
        surviving = [len(rows) for rows in survivors.rows]
        return Expectation(None, float(sum(surviving)), 0.0, [np.ones(n) for n in surviving], {})
    inclusion = list(in_threads(choice.inclusion, survivors.rows))
    rows, error = choice.expected(inclusion)
    error = error if survivors.settings.one_caption_per is None else texts_error(survivors.rows, inclusion)
    if not survivors.recipe.match:
        return Expectation(choice, rows, error, inclusion, choice.shares(survivors.counts, survivors.counts))
    kept = np.zeros(len(survivors.counts))
    pairs = zip(survivors.rows, inclusion, strict=True)
    for part in in_threads(lambda pair: sparse_sums(pair[0].matches, [fixed_point(pair[1])], len(kept)), pairs):
        kept[part.entries] += part.values[0]
    return Expectation(choice, rows, error, inclusion, choice.shares(survivors.counts, kept))


def count_copies(survivors: DecidedRows, expectation: Expectation) -> float:
    """Return the expected length of uids.npy, which counts repeats."""
    settings, choice, total = survivors.settings, expectation.choice, 0.0
    for state, rows, inclusion in zip(survivors.states, survivors.rows, expectation.inclusion, strict=True):
        if settings.repeat is not None:
            probability = np.zeros(len(state.verdicts))
            probability[state.eligible] = inclusion
            counts = survivors.counts if survivors.recipe.match else None
            repeats = count_repeats(settings.tables(state.unit), state, settings, counts, probability)
            total += float(repeats @ probability)
        elif choice is not None and (times := choice.repeats(choice.draws(rows))) is not None:
            total += float(times.sum())
        else:
            return expectation.rows
    return total
