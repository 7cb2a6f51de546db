"""The audit of a run: counts every row in the tables before anything is emitted or published.

Law: samples found = kept + dropped (per rule) + failed (per reason). Files that could not be read are counted
separately. The same pass over the tables collects the statistics of kept samples for publishing.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema, stages
from curate.base.errors import ConservationError, RunError
from curate.base.process import groups, in_threads
from curate.base.stages import KEPT
from curate.base.wording import pluralize
from curate.download.source import UrlsSource
from curate.emit.output_format import OutputFormat, find_output
from curate.match.unit import MatchSettings
from curate.pool.plan import Pool, Unit
from curate.pool.registry import find_downloading
from curate.read.field_types import FieldCounts
from curate.recipe.recipe import Recipe
from curate.recipe.source import Source, find_source
from curate.run.columns import table_names
from curate.run.context import RunContext, StepSettings
from curate.signals.short_texts import MAX_WORDS
from curate.store.layout import FAILURES_FILE, failures_part
from curate.store.store import RunStore
from curate.store.table_file import write_groups
from curate.store.tables import UnitTables

MEASURES = ("words", "width", "height")  # columns whose means are published

Drops = Counter[tuple[str, str | None]]  # rows by source and rule; None for kept rows


@dataclass(frozen=True)
class PublishSettings(StepSettings):
    """The settings for auditing, publishing and forgetting."""

    store: RunStore
    recipe: Recipe
    pool: Pool
    table_names: tuple[str, ...]  # the tables of each unit
    has_blocklist: bool  # whether a request or a blocklist blocks items
    matching: MatchSettings | None  # settings of `match`; None without

    @classmethod
    def of(cls, context: RunContext) -> "PublishSettings":
        has_blocklist = bool(context.blocklist_key)
        matching = MatchSettings.of(context) if context.recipe.match else None
        return cls(context.store, context.recipe, context.pool, table_names(context), has_blocklist, matching)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The recipe's sources, with their folders in the run."""
        return tuple(source.placed_in(self.store.url) for source in self.recipe.input)

    @property
    def output(self) -> OutputFormat:
        return find_output(self.recipe.output.format, self.pool.has_images)


class Failing(NamedTuple):
    """The number of failures with one reason, and the first example, with its unit."""

    rows: int
    unit: int
    example: str


@dataclass
class Audit:
    """Counts from the files of a unit, or sums over units. They are a few numbers, however large the units are."""

    sizes: dict[int, int] = field(default_factory=dict)  # unit → number of samples found
    drops: Drops = field(default_factory=Counter)
    kept: dict[int, int] = field(default_factory=dict)  # unit → number of kept rows, if it has any
    failing: dict[str, Failing] = field(default_factory=dict)  # of samples and files, by reason
    unread: set[str] = field(default_factory=set)  # files that could not be read at all, or whose embeddings could not
    failed: set[int] = field(default_factory=set)  # units with a file of failures
    downloads: set[str] = field(default_factory=set)  # downloaded shards in the run folder, without suffix
    # By label of a plugin's signal: the images that it failed on, and the first error
    errors: dict[str, Failing] = field(default_factory=dict)
    nonfinite: Counter[str] = field(default_factory=Counter)  # number of NaN and infinite values of signals, by column
    # For kept samples: rows by language, files by suffix, and the sum and number of values of MEASURES
    languages: Counter[str] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    measured: Counter[str] = field(default_factory=Counter)
    fields: FieldCounts = field(default_factory=Counter)  # number of values by field of the samples' json
    # for kept samples, by column of `schema.LICENCES`
    licences: Counter[tuple[str, str]] = field(default_factory=Counter)
    links: Counter[tuple[str, str]] = field(default_factory=Counter)  # links in pages, by source: see `Batch.links`
    short: Counter[str] = field(default_factory=Counter)  # short texts that were dropped, by rule

    def add(self, other: Self) -> None:
        for total, part in ((self.failing, other.failing), (self.errors, other.errors)):
            for key, failing in part.items():
                _add(total, key, failing)
        for name in vars(self).keys() - {"failing", "errors"}:  # counters, and dicts whose keys belong to one unit
            getattr(self, name).update(getattr(other, name))

    merge = add

    @property
    def rows(self) -> int:
        return sum(self.sizes.values())

    @property
    def verdicts(self) -> Counter[str]:
        """Number of rows by rule, and as `kept`."""
        total: Counter[str] = Counter()
        for (_, rule), rows in self.drops.items():
            total[rule or KEPT] += rows
        return total


def _add(failing: dict[str, Failing], key: str, part: Failing) -> None:
    first = min(failing.get(key, part), part, key=lambda each: each.unit)
    failing[key] = first._replace(rows=part.rows + (failing[key].rows if key in failing else 0))


def audit_unit(settings: PublishSettings, tables: UnitTables, unit: Unit) -> Audit:
    """Count the rows of a unit, and write its failures.

    Raises ConservationError if its tables contradict each other.
    """
    samples = tables.read("samples", ["uid", "status", "language", "format", *MEASURES])
    decisions = tables.read("decisions", ["uid", "kept", "rule"])
    verdicts = count_verdicts(samples, decisions, unit)
    notes = tables.notes("samples")
    files = [failure for note in notes for failure in note["failures"]]
    files += _embedding_faults(settings, tables)
    audit = Audit(
        sizes={unit.index: len(samples)},
        drops=Counter({(unit.source, None if rule == KEPT else rule): rows for rule, rows in verdicts.items()}),
        kept={unit.index: verdicts[KEPT]} if verdicts[KEPT] else {},
        unread={shard for shard, reason, _ in files if _is_unread(reason)},
        downloads=_downloads(settings, unit),
    )
    failures = _failures(settings, tables, unit, files, bool(verdicts[stages.FAILED]))
    if len(failures):
        settings.store.write_parquet(failures_part(unit.index), failures)
        audit.failed.add(unit.index)
    for row in failures.to_pylist():
        location = None if row["row"] is None else f"unit {row['unit']} row {row['row']}"
        parts = [row["shard"], row["key"] or location, row["detail"] and f"({row['detail']})"]
        example = " ".join(repr(word)[1:-1] for word in parts if word)
        _add(audit.failing, row["reason"], Failing(1, unit.index, example))
    can_fail = any(signal.kind != "language" for signal in settings.recipe.measure.requested)
    measured = ("scores", "embeddings", "related") if can_fail else ()
    for note in (note for name in measured if name in settings.table_names for note in tables.notes(name)):
        for error in note.get("errors", {}).values():
            _add(audit.errors, error["signal"], Failing(error["rows"], unit.index, error["first"]))
        for counts in note.get("nonfinite", {}).values():
            audit.nonfinite.update(counts)
    for note in notes:
        audit.fields.update({(name, kind): often for name, kind, often in note.get("fields", ())})
        audit.links.update({(unit.source, name): links for name, links in note.get("links", {}).items()})
    is_short = pc.less_equal(samples["words"], pa.scalar(MAX_WORDS))
    audit.short = _count_values(decisions["rule"].filter(is_short))
    _count_content(settings, tables, samples.filter(decisions["kept"]), audit)
    return audit


def _downloads(settings: PublishSettings, unit: Unit) -> set[str]:
    source = find_source(settings.sources, unit.source)
    kind = find_downloading(source)
    if kind is None or not isinstance(source, UrlsSource) or source.store:
        return set()
    return {kind.shard(source, part).removesuffix(".tar") for part in unit.parts if not part.fault}


def count_verdicts(samples: pa.Table, decisions: pa.Table, unit: Unit) -> Counter[str]:
    """Return a unit's rows by rule, and as `kept`. Raises ConservationError if its tables contradict each other."""
    if not samples["uid"].equals(decisions["uid"]):
        raise ConservationError(f"unit {unit.name}: samples and decisions are not aligned")
    verdicts = _count_values(decisions["rule"])
    if kept := _count_values(decisions["kept"])[True]:
        verdicts[KEPT] = kept
    unreadable = pc.not_equal(samples["status"], pa.scalar(schema.OK))
    dropped = pc.equal(decisions["kept"], pc.is_null(decisions["rule"]))
    failed = pc.equal(pc.is_in(decisions["rule"], pa.array([stages.FAILED])), unreadable)
    # A null in a column that must not have nulls counts as neither.
    if _count_values(dropped)[True] + _count_values(failed)[True] != 2 * len(samples):
        bad = _count_values(unreadable)[True]
        problem = f"{bad} of {len(samples)} samples could not be read, but the rows by rule are {verdicts}"
        raise ConservationError(f"unit {unit.name}: {problem}; or a row is both kept and dropped, or neither")
    return verdicts


def _failures(
    settings: PublishSettings, tables: UnitTables, unit: Unit, files: Iterable[list[str]], has_samples: bool
) -> pa.Table:
    columns = ("shard", "reason", "detail")
    of_files = [dict(zip(columns, failure, strict=True)) | {"unit": unit.index} for failure in files]
    failures = pa.Table.from_pylist(of_files, schema=schema.FAILURES)
    if not has_samples:
        return failures
    samples = tables.read("samples", ["unit", "row", "uid", "shard", "key", "status", "error"])
    samples = samples.filter(pc.not_equal(samples["status"], pa.scalar(schema.OK)))
    rows = samples.rename_columns({"status": "reason", "error": "detail"})
    source = find_source(settings.sources, unit.source)
    if kind := find_downloading(source):  # other sources have no attempts: the columns are null
        shards = samples["shard"].to_numpy()
        of_shards = {shard: np.flatnonzero(shards == shard) for shard in dict.fromkeys(shards.tolist())}
        keys = ((shard, samples["key"].take(of_shard).to_pylist()) for shard, of_shard in of_shards.items())
        attempts = pa.concat_tables(kind.read_attempts(source, *of_shard) for of_shard in keys)
        attempts = attempts.take(np.argsort(np.concatenate([*of_shards.values()])))
        rows = pa.table([*rows.columns, *attempts.columns], names=[*rows.column_names, *attempts.column_names])
    return pa.concat_tables([failures, rows], promote_options="default")


def _count_content(settings: PublishSettings, tables: UnitTables, kept: pa.Table, audit: Audit) -> None:
    """Count a unit's kept samples: rows by language, files by suffix, and sum and number of values for each measure."""
    audit.languages = _count_values(kept["language"])
    for name in MEASURES:
        if rows_measured := len(kept) - kept[name].null_count:
            audit.measured[name], audit.sums[name] = rows_measured, pc.sum(kept[name]).as_py()
    for name in (name for name in schema.LICENCES if name in settings.pool.scores.names):
        stated = tables.read("scores", [name])[name].filter(tables.read("decisions", ["kept"])["kept"])
        licences = _count_values(stated.cast(pa.string())) | Counter({"": stated.null_count})
        audit.licences.update({(name, licence): rows for licence, rows in licences.items() if rows})
    if not settings.output.has_members or not len(kept):
        return
    if "members" in settings.table_names:
        suffixes = tables.read("members", ["suffix"]).filter(tables.read("decisions", ["kept"])["kept"])["suffix"]
        audit.suffixes = _count_values(pc.list_flatten(suffixes))
    else:
        is_jpeg = pc.equal(kept["format"], pa.scalar("jpeg"))
        audit.suffixes = _count_values(pc.if_else(is_jpeg, pa.scalar("jpg"), kept["format"]))
    audit.suffixes |= Counter({"txt": len(kept), "json": len(kept)})  # every sample in the tars has these files


def _count_values(column: pa.Array | pa.ChunkedArray) -> Counter[Any]:
    counts = pc.value_counts(column.drop_null())
    return Counter(dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)))


def nest_counts(counts: Counter[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Return counts of pairs as counts of the second names by the first name, in order."""
    nested: dict[str, Counter[str]] = {}
    for (outer, inner), count in sorted(counts.items()):
        nested.setdefault(outer, Counter())[inner] = count
    return nested


def _embedding_faults(settings: PublishSettings, tables: UnitTables) -> list[list[str]]:
    """Return the unit's files whose embeddings could not be used, each once, with a reason and the error."""
    names = [name for name in ("scores", "embeddings") if name in settings.table_names]
    if not settings.recipe.measure.embeddings or not names:
        return []
    by_model = [errors for note in tables.notes(names[0]) for errors in note.get("faults", {}).values()]
    pairs = dict.fromkeys((path, detail) for errors in by_model for path, detail in errors)
    return [[path, schema.DAMAGED_EMBEDDINGS, detail] for path, detail in pairs]


class Limit(NamedTuple):
    """The number of bad rows or files, and the share of them that the recipe allows."""

    name: str  # the key in the recipe
    noun: str
    became: str
    bad: int
    total: int
    allowed: float

    @property
    def is_exceeded(self) -> bool:
        return self.bad > 0 and self.bad / self.total > self.allowed

    @property
    def remedy(self) -> str:
        """The option that makes a run accept this many: the limit in whole percent."""
        return f"--set {self.name}={min(100, 100 * self.bad // self.total + 1) / 100}"


def row_limits(recipe: Recipe, failed: int, missing: int, rows: int) -> tuple[Limit, Limit]:
    """Return the limits for failed rows without the `missing` ones, and for rows that were not downloaded."""
    unread = Limit("max_failed", "samples", "could not be read", failed, rows - missing, recipe.max_failed)
    return unread, Limit("max_missing", "samples", "were never downloaded", missing, rows, recipe.max_missing)


def check_damage(settings: PublishSettings, audit: Audit) -> Audit:
    """Return the audit. Raises RunError if more failed than the recipe allows, or if a signal failed on all images."""
    failed, recipe = audit.verdicts[stages.FAILED], settings.recipe
    for signal, error in audit.errors.items():
        if error.rows >= audit.rows - failed:
            problem = f"{signal}: fails on each of {pluralize(error.rows, 'image')}; the first error is"
            raise RunError(f"{problem} {error.example}")
    never_came = audit.failing.keys() & schema.MISSING_REASONS.keys()
    missing = sum(audit.failing[reason].rows for reason in never_came)
    partly = schema.DAMAGE_REASONS.keys() - {schema.DAMAGED_EMBEDDINGS}
    of_files = {reason for reason in audit.failing if _is_unread(reason)}
    of_samples = audit.failing.keys() - of_files - partly - never_came
    unread, allowed = len(audit.unread), recipe.max_failed_files
    of_all_files = Limit("max_failed_files", "files", "could not be read", unread, settings.pool.files, allowed)
    limits = (*row_limits(recipe, failed - missing, missing, audit.rows), of_all_files)
    lines, remedies = [], []
    for limit, reasons in zip(limits, (of_samples, never_came, of_files), strict=True):
        if limit.is_exceeded:
            share = f"{limit.bad:,} of {limit.total:,} {limit.noun} ({limit.bad / limit.total:.1%})"
            lines.append(f"{share} {limit.became}, but {limit.name} is {limit.allowed}")
            failing = [(reason, audit.failing[reason]) for reason in reasons]
            for reason, part in sorted(failing, key=lambda item: (-item[1].rows, item[0])):
                lines.append(f"  {reason} {part.rows:,}, such as {part.example}")
            remedies.append(limit.remedy)
    if lines:
        write_failures(settings.store, audit)
        repaired = "After you repair the files, run with --out NEW --reuse this folder."
        lines.append(f"All are in failures.parquet of the run folder. {repaired}")
        lines.append(f"To continue anyway, raise the limit in the recipe, or run again with {' '.join(remedies)}")
        raise RunError("\n".join(lines))
    return audit


def _is_unread(reason: str) -> bool:
    return reason in schema.FILE_REASONS or reason == schema.DAMAGED_EMBEDDINGS


def failures_parts(audit: Audit) -> list[str]:
    """Return the files that have failures of units, until one table has them all."""
    return list(map(failures_part, sorted(audit.failed)))


def write_failures(store: RunStore, audit: Audit) -> None:
    """Write failures.parquet, with schema.FAILURES, for the whole run.

    Only a few units' failures are in memory at a time.
    """
    rows = sum(part.rows for part in audit.failing.values())
    parts = chain([schema.FAILURES.empty_table()], in_threads(store.read_parquet, failures_parts(audit)))
    tables = (pa.concat_tables(files).combine_chunks() for files in groups(parts, len, 1 << 18))
    with store.create(FAILURES_FILE, rows) as file:
        write_groups(file, tables, schema.FAILURES, rows)


def check_conservation(audit: Audit, emitted: int) -> Counter[str]:
    """Return the whole run's rows by rule, and as `kept`. Raises ConservationError if the sums do not match."""
    total = audit.verdicts
    if total.total() != audit.rows or total[KEPT] != emitted:
        sums = f"{audit.rows} samples, {dict(total)} by rule, {emitted} rows in shards"
        raise ConservationError(f"{sums}: the sums do not match")
    return total
