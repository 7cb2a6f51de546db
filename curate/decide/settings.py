"""The settings for deciding, and the keys of the tables that it writes."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from curate.base import ids, schema
from curate.base.errors import RecipeError
from curate.base.registry import version
from curate.base.stages import VERSIONS
from curate.decide.dedup.passes.dedup_pass import ImageNearness, KeyPass, Nearness
from curate.decide.dedup.passes.embedding import EmbeddingCosine
from curate.decide.draw.groups import check_groups, check_numbers
from curate.decide.draw.selection import RowsLeft, Selection, SelectionRun
from curate.decide.rules.row_counts import count_columns
from curate.decide.rules.rules import Rule, check_rules
from curate.decide.statistics.derived import Derived, check_derived, needed_columns, read_columns
from curate.decide.unit_state import UnitState
from curate.expressions.check import CheckedExpression, check_count
from curate.match.languages import languages_digest
from curate.match.unit import MatchSettings, load_entries
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Pool
from curate.recipe.deciding import DEDUP, KEYS, NEARNESS, SELECTIONS, Dedup, Near, Top
from curate.recipe.recipe import REFERENCE, Recipe
from curate.recipe.section import without_runtime
from curate.relate.steps import related_key
from curate.run.columns import visible_columns
from curate.run.context import RunContext, StepSettings
from curate.store.store import RunStore
from curate.store.tables import UnitTables


class Segment(NamedTuple):
    """SQL rules that each unit evaluates alone, and the step over all units that follows them, if any."""

    first: int  # position of the first of these rules
    rules: tuple[Rule, ...] = ()
    derive: tuple[str, ...] = ()  # derived columns whose statistics are then computed over the surviving rows
    top: Rule | None = None
    dedup: bool = False  # whether deduplication follows


@dataclass(frozen=True)
class DecideSettings(StepSettings):
    """The settings for deciding."""

    store: RunStore
    recipe: Recipe  # without inputs and captions, which may contain credentials
    columns: pa.Schema  # the columns that rules see
    derived: dict[str, Derived]  # derived columns by name
    segments: tuple[Segment, ...]
    matching: MatchSettings | None  # settings of `match`; None without
    passes: tuple[KeyPass | Nearness, ...]  # deduplication passes, in order
    compares_content: bool  # whether rows with one uid may differ in image or caption
    against: ImageNearness | None  # comparison with the evaluation set; None without one
    one_caption_per: str | None  # the column that identifies images, if only one text per image may be drawn
    selection: tuple[Selection, Any] | None  # with its section; None if all remaining rows are kept
    repeat: CheckedExpression | None  # repeats of a kept row; None: once, or given by the selection
    key: str  # of `decisions`, if all files could be read
    began: str  # start of the command in seconds, the prefix of its progress records

    @classmethod
    def of(cls, context: RunContext) -> "DecideSettings":
        recipe, pool = context.recipe, context.pool
        columns = visible_columns(recipe, MeasureSettings.of(context).signals, pool)
        derived = check_derived(recipe.derive, columns)
        columns = pa.schema([*columns, *(pa.field(column.name, column.kind) for column in derived.values())])
        _check_dedup(recipe.dedup, pool, columns, set(derived))

        def nearness(near: Near) -> Any:
            return NEARNESS.find(near.kind).build(near.section, recipe.measure, pool.rows)

        if recipe.selection:
            recipe.selector.check(recipe.selection[1], columns, recipe)
        repeat = recipe.output.repeat
        counted = count_columns(columns, recipe.match is not None)
        return cls(
            store=context.store,
            recipe=recipe.model_copy(update={"input": (), "captions": None}),
            columns=columns,
            derived=derived,
            segments=tuple(cut_segments(check_rules(recipe.rules, columns), derived, recipe.dedup.prefer)),
            matching=MatchSettings.of(context) if recipe.match else None,
            passes=tuple(KEYS.find(by) if isinstance(by, str) else nearness(by) for by in recipe.dedup.by),
            compares_content=pool.has_images or "uid" in pool.supplied,  # otherwise uids are made from URL and caption
            against=nearness(recipe.dedup.against) if recipe.dedup.against else None,
            one_caption_per=recipe.balance.image_column if recipe.balance else None,
            selection=(recipe.selector, recipe.selection[1]) if recipe.selection else None,
            repeat=check_count("output.repeat", repeat, counted) if repeat else None,
            key=decisions_key(context),
            began=f"{time.time():.0f}",
        )

    def key_without(self, unread: Sequence[str]) -> str:
        """Return the key of `decisions` if these files, in any order, could not be read."""
        return ids.digest([self.key, sorted(unread)]) if unread else self.key

    @property
    def n_entries(self) -> int:
        return len(self.selection_run.entries.table)

    def read(self, tables: UnitTables, state: UnitState, names: Sequence[str]) -> pa.Table:
        return read_columns(tables, self.derived, state.derived, names)

    def rows_left(self, tables: UnitTables, state: UnitState) -> RowsLeft:
        entries = load_entries(self.matching) if self.matching else None
        columns, texts = partial(self.read, tables, state), None
        if self.one_caption_per is not None:
            texts = np.ones(len(state.verdicts))
            if state.texts:
                texts[state.texts.rows] = state.texts.numbers
            texts = texts[state.eligible]
        source, eligible = state.unit.source, state.eligible
        return RowsLeft(tables, source, self.recipe.seed, eligible, entries, columns, self.one_caption_per, texts)

    @property
    def selection_run(self) -> SelectionRun:
        seed, place = self.recipe.seed, self.store.url
        return SelectionRun(seed, self.matching, place, self.rows_left, self.columns, self.store)

    @property
    def later(self) -> int:
        return 1 + next(i for i, segment in enumerate(self.segments) if segment.dedup)

    @property
    def has_later_rules(self) -> bool:
        return bool(self.segments[-1].rules) or self.later + 1 < len(self.segments)

    @cached_property
    def near(self) -> dict[int, Nearness]:
        return {number: by for number, by in enumerate(self.passes) if isinstance(by, Nearness)}


def decisions_key(context: RunContext) -> str:
    """Return the key of all `decisions` of a run, which depend on the whole pool."""
    recipe, measured = context.recipe, MeasureSettings.of(context)
    plain = [(source, source.model_dump(exclude={"path", "storage", "join"})) for source in context.recipe.input]
    sources = [without_runtime(source, fields) for source, fields in plain]
    joins = [[name, g.digest] for name, groups in context.pool.groups.items() for g in groups if g.digest]
    scores = [[field.name, str(field.type)] for field in measured.score_schema]
    signals = [signal.key for signal in measured.signals]
    versions = [VERSIONS[step] for step in ("measure", "match", "decide")]
    return ids.digest(
        [
            *(versions, context.pool.key, sources, _deciding_sections(context.recipe), scores, signals),
            *(measured.value_versions, version("duckdb"), context.metadata_key, context.evaluation_key),
            *([joins] if joins else []),
            *([["counts", context.counts_key]] if context.counts_key else []),
            *([["drawn before"]] if schema.INPUT_PROBABILITY in context.pool.scores.names else []),
            *([context.blocklist_key] if context.blocklist_key else []),
            *([["related", key]] if (key := related_key(context)) else []),
            *([["languages", languages_digest()]] if recipe.match and recipe.match.mode != REFERENCE else []),
            *([[schema.DUPLICATE_COSINE.name]] if has_cosines(context.recipe) else []),
        ]
    )


def has_cosines(recipe: Recipe) -> bool:
    """Return whether `decisions` has `schema.DUPLICATE_COSINE`."""
    return any(NEARNESS.find(near.kind).has_cosines for near in recipe.dedup.near.values())


def _deciding_sections(recipe: Recipe) -> dict[str, object]:
    """Return the recipe's sections about deciding, with digests of contents in place of paths."""
    plain = recipe.model_dump(
        include={"match", "rules", "dedup", "balance", "seed"},
        exclude={"match": {"metadata"}, "balance": {"counts"}, "dedup": {"against": {"images"}}},
    )
    plain["image"] = recipe.measure.image.model_dump()
    plain |= {"repeat": recipe.output.repeat} if recipe.output.repeat else {}
    plain["rules"] = list(plain["rules"].items())  # their order matters
    if recipe.selection and recipe.selection[0] != "balance":
        key, section = recipe.selection
        plain[key] = section.model_dump(exclude={"quotas": {"centroids"}} if recipe.sample else None)
        if package := SELECTIONS.package(key):
            plain[key] = [package, plain[key]]
    if packages := recipe.dedup.packages:
        plain["dedup"] |= {"packages": packages}
    if recipe.derive:
        plain["derive"] = list(recipe.derive.items())
    return plain


def _check_dedup(dedup: Dedup, pool: Pool, columns: pa.Schema, derived: Collection[str]) -> None:
    for near in dedup.near.values():
        if not isinstance(near.section, EmbeddingCosine) or (within := near.section.within) is None:
            continue
        check_groups("dedup.by.within", within, columns)
        if within in derived:
            raise RecipeError(f"dedup.by.within: {within!r} is a column of derive; accepted: other columns")
    if not pool.has_images:
        accepted = ", ".join(key for key, kind in KEYS.kinds().items() if not kind.needs_images)
        for by in dedup.by:
            if isinstance(by, str) and KEYS.find(by).needs_images:
                raise RecipeError(f"dedup.by: {by} needs images, and the pool has none; accepted: {accepted}")
    if dedup.prefer is not None:
        check_numbers("dedup.prefer", dedup.prefer, columns)


def cut_segments(rules: Sequence[Rule], derived: Mapping[str, Derived], prefer: str | None) -> list[Segment]:
    """Return the segments of a recipe's rules; the last one is followed by nothing.

    `prefer` is the column that deduplication prefers, if any. A derived column is computed before the first rule that
    uses it, or before deduplication; if nothing uses it, after all rules.
    """
    cut: list[Segment] = []
    group: list[Rule] = []
    computed: set[str] = set()

    def end(position: int, **follows: Any) -> None:
        cut.append(Segment(position - len(group), tuple(group), **follows))
        group.clear()

    def know(position: int, columns: Iterable[str]) -> None:
        needed = needed_columns(derived, list(columns))
        wanted = [name for name in needed if name not in computed and derived[name].statistics]
        while wanted:  # a column comes after those that it is computed from
            ready = tuple(name for name in wanted if {*needed_columns(derived, [name])} & {*wanted} == {name})
            end(position, derive=ready)
            computed.update(ready)
            wanted = [name for name in wanted if name not in ready]

    for position, rule in enumerate(rules):
        know(position, rule.columns)
        if isinstance(rule.spec, Top):
            end(position, top=rule)
        elif rule.spec == DEDUP:
            know(position, [prefer] if prefer else [])
            end(position, dedup=True)
        else:
            group.append(rule)
    know(len(rules), derived)
    if not any(segment.dedup for segment in cut):
        end(len(rules), dedup=True)
    end(len(rules))
    return cut
