"""The audit of a run: every row counted from the tables, before anything is emitted or published.

Law: samples found = kept + dropped (per rule) + failed (per reason); files that could not be read are counted apart.
What publishing tells of the kept samples is counted with it, in the same reading of the tables.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.errors import ConservationError, RunError
from curate.base.schema import KEPT
from curate.base.wording import pluralise
from curate.emit.output_format import OutputFormat, find_output
from curate.match.unit import MatchSettings
from curate.pool.decode.field_types import FieldCounts
from curate.pool.plan import Pool, Unit
from curate.pool.registry import find_downloading
from curate.recipe.measure import SIGNALS
from curate.recipe.recipe import Recipe
from curate.recipe.source import Source, find_source, place_sources
from curate.run.columns import table_names
from curate.run.context import RunContext, StepSettings
from curate.store.layout import FAILURES_FILE, FAILURES_PARTS, caption_statistics_file, failures_part, table_file
from curate.store.store import RunStore
from curate.store.tables import UnitTables

MEASURES = ("words", "width", "height")  # whose means are published

Drops = Counter[tuple[str, str | None]]  # rows by source and rule, None for kept ones


@dataclass(frozen=True)
class PublishSettings(StepSettings):
    """What auditing, publishing and forgetting read."""

    store: RunStore
    recipe: Recipe
    pool: Pool
    table_names: tuple[str, ...]  # the tables that each unit has
    has_blocklist: bool  # whether something is kept out on request
    matching: MatchSettings | None  # what `match` gives; None without

    @classmethod
    def of(cls, context: RunContext) -> "PublishSettings":
        """Return those of a run."""
        has_blocklist = bool(context.blocklist_key)
        matching = MatchSettings.of(context) if context.recipe.match else None
        return cls(context.store, context.recipe, context.pool, table_names(context), has_blocklist, matching)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The recipe's sources, with their places in the run's folder."""
        return place_sources(self.recipe.input, self.store.url)

    @property
    def output(self) -> OutputFormat:
        """The format of the shards."""
        return find_output(self.recipe.output.format, self.pool.has_images)

    def unit_files(self, first: int, last: int | None = None) -> list[str]:
        """Return the published files of a unit; with `last`, those of the chunk of units from `first` to it."""
        files = [table_file(name, first, last) for name in self.table_names]
        return [*files, caption_statistics_file(first, last)] if self.recipe.captions else files


class Failing(NamedTuple):
    """How often something failed for a reason, and the first example of it, with its unit."""

    rows: int
    unit: int
    example: str

    def add(self, other: "Failing") -> "Failing":
        """Return both together."""
        first = self if self.unit <= other.unit else other
        return Failing(self.rows + other.rows, first.unit, first.example)


@dataclass
class Audit:
    """What the files of a unit hold, or, added up, those of all units; a few numbers, whatever a unit has."""

    sizes: dict[int, int] = field(default_factory=dict)  # unit → samples found
    drops: Drops = field(default_factory=Counter)
    kept: dict[int, int] = field(default_factory=dict)  # unit → rows kept, of units that have some
    failing: dict[str, Failing] = field(default_factory=dict)  # by reason, of samples and files
    unread: set[str] = field(default_factory=set)  # files that could not be read at all, or whose embeddings could not
    # By label of a signal of another package: the images that it failed on, and the first error
    errors: dict[str, Failing] = field(default_factory=dict)
    # Of the kept samples: rows by language, files by suffix, the sum of each of MEASURES and how many have it
    languages: Counter[str] = field(default_factory=Counter)
    suffixes: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    fields: FieldCounts = field(default_factory=Counter)  # how many values the samples' own fields have

    def add(self, other: Self) -> None:
        """Add what other units hold."""
        self.sizes |= other.sizes
        for name in ("drops", "languages", "suffixes", "sums", "known", "fields"):
            getattr(self, name).update(getattr(other, name))
        self.kept |= other.kept
        for total, more in ((self.failing, other.failing), (self.errors, other.errors)):
            total |= {key: total[key].add(part) if key in total else part for key, part in more.items()}
        self.unread |= other.unread

    merge = add

    @property
    def rows(self) -> int:
        """Samples found."""
        return sum(self.sizes.values())

    @property
    def verdicts(self) -> Counter[str]:
        """Rows per rule, and `kept`."""
        total: Counter[str] = Counter()
        for (_, rule), rows in self.drops.items():
            total[rule or KEPT] += rows
        return total


def audit_unit(settings: PublishSettings, tables: UnitTables, unit: Unit) -> Audit:
    """Count a unit's rows, and write which could not be read. Raises ConservationError where tables contradict."""
    samples = tables.read("samples", ["uid", "status", "language", "format", *MEASURES])
    decisions = tables.read("decisions", ["uid", "kept", "rule"])
    if not samples["uid"].equals(decisions["uid"]):
        raise ConservationError(f"unit {unit.name}: samples and decisions are not aligned")
    verdicts = _count_values(decisions["rule"])
    if kept := pc.sum(decisions["kept"]).as_py():
        verdicts[KEPT] = kept
    unreadable = pc.not_equal(samples["status"], schema.OK)
    bad = pc.sum(unreadable).as_py() or 0
    dropped = pc.equal(decisions["kept"], pc.is_null(decisions["rule"]))
    failed = pc.equal(pc.fill_null(pc.equal(decisions["rule"], schema.FAILED), False), unreadable)
    # A null in a column that may hold none counts as neither.
    if sum(pc.sum(part).as_py() or 0 for part in (dropped, failed)) != 2 * len(samples):
        raise ConservationError(
            f"unit {unit.name}: of {len(samples)} samples {bad} could not be read, but rows by rule are {verdicts}, "
            "or a row is both kept and dropped, or neither"
        )
    notes = tables.notes("samples")
    files = [failure for note in notes for failure in note["failures"]]
    files += _embedding_faults(settings, tables)
    columns = ("shard", "reason", "detail")
    of_files = [dict(zip(columns, failure, strict=True)) | {"unit": unit.index} for failure in files]
    failures = pa.Table.from_pylist(of_files, schema=schema.FAILURES)
    if bad:
        named = ["unit", "row", "uid", "shard", "key", "status", "error"]
        of_samples = tables.read("samples", named).filter(unreadable)
        attempts = _attempts(settings, unit.source, of_samples)
        rows = pa.Table.from_arrays([*of_samples.columns, *attempts.columns], schema=schema.FAILURES)
        failures = pa.concat_tables([failures, rows])
    if len(failures):
        settings.store.write_parquet(failures_part(unit.index), failures)
    audit = Audit(
        sizes={unit.index: len(samples)},
        drops=Counter({(unit.source, None if rule == KEPT else rule): rows for rule, rows in verdicts.items()}),
        kept={unit.index: verdicts[KEPT]} if verdicts[KEPT] else {},
        failing=_count_failures(failures, unit),
        unread={shard for shard, reason, _ in files if _is_unread(reason)},
        fields=_count_values_of_fields(notes),
        errors=_signal_errors(settings, tables, unit),
    )
    _count_content(settings, tables, samples.drop_columns(["uid", "status"]).filter(decisions["kept"]), audit)
    return audit


def _signal_errors(settings: PublishSettings, tables: UnitTables, unit: Unit) -> dict[str, Failing]:
    """Return which signals of other packages failed on images of the unit."""
    audit = Audit()
    if any(SIGNALS.package(requested.kind) for requested in settings.recipe.measure.requested):
        for note in tables.notes("scores") if "scores" in settings.table_names else ():
            for error in note.get("errors", {}).values():
                audit.add(Audit(errors={error["signal"]: Failing(error["rows"], unit.index, error["first"])}))
    return audit.errors


def _attempts(settings: PublishSettings, name: str, samples: pa.Table) -> pa.Table:
    """Return schema.ATTEMPTS of samples of a source, null where it downloads nothing."""
    source = find_source(settings.sources, name)
    kind = find_downloading(source)
    if kind is None:
        return pa.table([pa.nulls(len(samples), field.type) for field in schema.ATTEMPTS], schema=schema.ATTEMPTS)
    parts, places = [schema.ATTEMPTS.empty_table()], []
    shards = samples["shard"].to_numpy(zero_copy_only=False)
    for shard in dict.fromkeys(shards.tolist()):
        of_shard = np.flatnonzero(shards == shard)
        places.append(of_shard)
        parts.append(kind.read_attempts(source, shard, samples["key"].take(pa.array(of_shard)).to_pylist()))
    return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))


def _count_values_of_fields(notes: Iterable[dict[str, Any]]) -> FieldCounts:
    counts: FieldCounts = Counter()
    for note in notes:
        counts.update({(name, kind): often for name, kind, often in note.get("fields", ())})
    return counts


def _count_content(settings: PublishSettings, tables: UnitTables, kept: pa.Table, audit: Audit) -> None:
    """Count a unit's kept samples: rows by language, files by suffix, the sum of each measure and how many have it."""
    if not len(kept):
        return
    audit.languages = _count_values(kept["language"])
    for name in MEASURES:
        if known := len(kept) - kept[name].null_count:
            audit.known[name], audit.sums[name] = known, pc.sum(kept[name]).as_py()
    if not settings.output.has_members:
        return
    if "members" in settings.table_names:
        suffixes = tables.read("members", ["suffix"]).filter(tables.read("decisions", ["kept"])["kept"])["suffix"]
        audit.suffixes = _count_values(pc.list_flatten(suffixes))
    else:
        audit.suffixes = _count_values(pc.if_else(pc.equal(kept["format"], "jpeg"), "jpg", kept["format"]))
    audit.suffixes |= Counter({"txt": len(kept), "json": len(kept)})  # which every sample has in the tars


def _count_values(column: Any) -> Counter[str]:
    counts = pc.value_counts(column.drop_null()).to_pylist()
    return Counter({item["values"]: item["counts"] for item in counts})


def _count_failures(failures: pa.Table, unit: Unit) -> dict[str, Failing]:
    audit = Audit()
    for row in failures.to_pylist():
        place = None if row["row"] is None else f"unit {row['unit']} row {row['row']}"
        words = [row["shard"], row["key"] or place, row["detail"] and f"({row['detail']})"]
        example = " ".join(repr(word)[1:-1] for word in words if word)
        audit.add(Audit(failing={row["reason"]: Failing(1, unit.index, example)}))
    return audit.failing


def _embedding_faults(settings: PublishSettings, tables: UnitTables) -> list[list[str]]:
    """Return the unit's files whose embeddings could not be used, each with a reason and what is wrong, each once."""
    names = [name for name in ("scores", "embeddings") if name in settings.table_names]
    if not settings.recipe.measure.embeddings or not names:
        return []
    by_model = [faults for note in tables.notes(names[0]) for faults in note.get("faults", {}).values()]
    pairs = dict.fromkeys((path, detail) for faults in by_model for path, detail in faults)
    return [[path, schema.DAMAGED_EMBEDDINGS, detail] for path, detail in pairs]


def allow(limit: str, bad: int, rows: int) -> str:
    """Return the option by which a run accepts so many bad rows: the limit in whole percent."""
    return f"--set {limit}={min(100, 100 * bad // rows + 1) / 100}"


def check_damage(settings: PublishSettings, audit: Audit) -> None:
    """Raise RunError where more samples or files are unread than the recipe allows, or a signal failed on all."""
    failed, recipe = audit.verdicts[schema.FAILED], settings.recipe
    for signal, error in audit.errors.items():
        if error.rows >= audit.rows - failed:
            what = f"{signal}: fails on each of {pluralise(error.rows, 'image')}, the first time with"
            raise RunError(f"{what} {error.example}")
    never_came = audit.failing.keys() & schema.MISSING_REASONS.keys()
    missing = sum(audit.failing[reason].rows for reason in never_came)
    partly = schema.DAMAGE_REASONS.keys() - {schema.DAMAGED_EMBEDDINGS}
    of_files = {reason for reason in audit.failing if _is_unread(reason)}
    of_samples = audit.failing.keys() - of_files - partly - never_came
    lines, remedies = [], []
    for name, what, reasons, bad, total, limit in (
        ("max_failed", "samples", of_samples, failed - missing, audit.rows - missing, recipe.max_failed),
        ("max_missing", "samples", never_came, missing, audit.rows, recipe.max_missing),
        ("max_failed_files", "files", of_files, len(audit.unread), settings.pool.files, recipe.max_failed_files),
    ):
        if bad and bad / total > limit:
            how = "were never downloaded" if name == "max_missing" else "could not be read"
            lines.append(f"{bad:,} of {total:,} {what} ({bad / total:.1%}) {how}, and {name} is {limit}")
            lines += [f"  {line}" for line in _reasons(audit, reasons)]
            remedies.append(allow(name, bad, total))
    if lines:
        settings.store.write_parquet(FAILURES_FILE, all_failures(settings.store))
        repaired = "Once they are repaired, run with --out NEW --reuse this folder."
        lines.append(f"All are in failures.parquet of the run folder. {repaired}")
        raise RunError("\n".join([*lines, f"To continue anyway, run again with {' '.join(remedies)}"]))


def _is_unread(reason: str) -> bool:
    return reason in schema.FILE_REASONS or reason == schema.DAMAGED_EMBEDDINGS


def _reasons(audit: Audit, wanted: Collection[str]) -> Iterator[str]:
    """Yield a line for each of some reasons: how often, and an example."""
    failing_of = [(reason, failing) for reason, failing in audit.failing.items() if reason in wanted]
    for reason, failing in sorted(failing_of, key=lambda item: (-item[1].rows, item[0])):
        yield f"{reason} {failing.rows:,}, such as {failing.example}"


def all_failures(store: RunStore) -> pa.Table:
    """Return schema.FAILURES of the whole run, as its units wrote them."""
    names = sorted(store.files(FAILURES_PARTS), key=lambda name: (len(name), name))  # numbers may have six digits
    parts = [store.read_parquet(name) for name in names]
    return pa.concat_tables([schema.FAILURES.empty_table(), *parts]).combine_chunks()


def check_conservation(audit: Audit, emitted: int) -> Counter[str]:
    """Return rows per rule, and `kept`, of the whole run. Raises ConservationError where the sums do not match."""
    total = audit.verdicts
    if total.total() != audit.rows or total[KEPT] != emitted:
        sums = f"{audit.rows} samples, {dict(total)} by rule, {emitted} rows in shards"
        raise ConservationError(f"{sums}: the sums do not match")
    return total
