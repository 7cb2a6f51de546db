"""The audit of a run: every row counted from the tables, before anything is emitted or published.

Law: samples found = kept + dropped (per rule) + failed (per reason); files that could not be read are counted apart.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.errors import ConservationError, RunError
from curate.pool.plan import Pool, Unit
from curate.recipe.recipe import Recipe
from curate.run.columns import table_names
from curate.run.context import RunContext
from curate.schema import KEPT
from curate.store.layout import FAILURES_FILE, caption_statistics_file, table_file
from curate.store.store import RunStore
from curate.store.tables import UnitTables

Drops = Counter[tuple[str, str | None]]  # rows by source and rule, None for kept ones


@dataclass(frozen=True)
class PublishSettings:
    """What auditing, publishing and forgetting read."""

    store: RunStore
    recipe: Recipe
    pool: Pool
    table_names: tuple[str, ...]  # the tables that each unit has
    has_blocklist: bool  # whether something is kept out on request

    @classmethod
    def of(cls, context: RunContext) -> "PublishSettings":
        """Return those of a run."""
        has_blocklist = bool(context.blocklist_key)
        return cls(context.store, context.recipe, context.pool, table_names(context), has_blocklist)

    def tables(self, unit: Unit) -> UnitTables:
        """Return a unit's tables."""
        return UnitTables(self.store, unit.index, last=unit.last)

    def unit_files(self, first: int, last: int | None = None) -> list[str]:
        """Return the files of a unit that are published; with `last`, those of the chunk of units from `first` to it."""
        files = [table_file(name, first, last) for name in self.table_names]
        return [*files, caption_statistics_file(first, last)] if self.recipe.captions else files


@dataclass(frozen=True)
class Audit:
    """What a unit's files hold."""

    unit: Unit
    rows: int  # samples found
    verdicts: dict[str, int]  # rows per rule, and `kept`
    failures: pa.Table  # schema.FAILURES of files and samples that could not be read
    files: frozenset[str]  # input files, by path
    unread: frozenset[str]  # those of them that could not be read at all, or whose embeddings could not

    @property
    def kept(self) -> int:
        """Rows kept."""
        return self.verdicts.get(KEPT, 0)


def audit_unit(settings: PublishSettings, unit: Unit) -> Audit:
    """Count a unit's rows. Raises ConservationError where its tables contradict each other."""
    tables = settings.tables(unit)
    samples = tables.read("samples", ["uid", "shard", "key", "status", "error"])
    decisions = tables.read("decisions", ["uid", "kept", "rule"])
    if len(samples) != len(decisions) or not samples["uid"].combine_chunks().equals(decisions["uid"].combine_chunks()):
        raise ConservationError(f"unit {unit.name}: samples and decisions are not aligned")
    rules = pc.if_else(decisions["kept"], KEPT, decisions["rule"])
    verdicts = {item["values"]: int(item["counts"]) for item in pc.value_counts(rules.combine_chunks()).to_pylist()}
    unreadable = pc.not_equal(samples["status"], schema.OK)
    bad = samples.filter(unreadable)
    dropped = pc.equal(decisions["kept"], pc.is_null(decisions["rule"]))
    failed = pc.equal(pc.equal(rules, schema.FAILED), unreadable)
    # A null in a column that may hold none counts as neither.
    if sum(pc.sum(part).as_py() or 0 for part in (dropped, failed)) != 2 * len(samples):
        raise ConservationError(
            f"unit {unit.name}: of {len(samples)} samples {len(bad)} could not be read, but rows by rule are {verdicts}, "
            "or a row is both kept and dropped, or neither"
        )
    files = [failure for note in tables.notes("samples") for failure in note["failures"]]
    files += _embedding_faults(settings, unit)
    of_files = [{"shard": shard, "reason": reason, "detail": detail} for shard, reason, detail in files]
    of_samples = [bad["shard"], bad["key"], bad["status"], bad["error"]]
    return Audit(
        unit=unit,
        rows=len(samples),
        verdicts=verdicts,
        failures=pa.concat_tables(
            [
                pa.Table.from_pylist(of_files, schema=schema.FAILURES),
                pa.Table.from_arrays(of_samples, schema=schema.FAILURES),
            ]
        ),
        files=frozenset(part.path for part in unit.parts),
        unread=frozenset(shard for shard, reason, _ in files if _is_unread(reason)),
    )


def _embedding_faults(settings: PublishSettings, unit: Unit) -> list[list[str]]:
    """Return the unit's files whose embeddings could not be used, each with a reason and what is wrong, each once."""
    names = [name for name in ("scores", "embeddings") if name in settings.table_names]
    if not settings.recipe.measure.embeddings or not names:
        return []
    faults = [note.get("faults", {}) for note in settings.tables(unit).notes(names[0])]
    found = [(path, schema.DAMAGED_EMBEDDINGS, detail) for one in faults for of in one.values() for path, detail in of]
    return [list(row) for row in dict.fromkeys(found)]


def check_damage(settings: PublishSettings, audits: Iterable[Audit]) -> None:
    """Raise RunError where more samples or files could not be read than the recipe allows; names the reasons."""
    audits = list(audits)
    rows = sum(audit.rows for audit in audits)
    failed = sum(audit.verdicts.get(schema.FAILED, 0) for audit in audits)
    files = frozenset().union(*(audit.files for audit in audits))
    unread = frozenset().union(*(audit.unread for audit in audits))
    found, remedies = [], []
    for name, bad, total, limit in (
        ("max_failed", failed, rows, settings.recipe.max_failed),
        ("max_failed_files", len(unread), len(files), settings.recipe.max_failed_files),
    ):
        if bad and bad / total > limit:
            what = "samples" if name == "max_failed" else "files"
            found.append(f"{bad:,} of {total:,} {what} ({bad / total:.1%}) could not be read, and {name} is {limit}")
            found += [f"  {line}" for line in _reasons(audits, what)]
            remedies.append(f"--set {name}={min(100, 100 * bad // total + 1) / 100}")
    if found:
        settings.store.write_parquet(FAILURES_FILE, all_failures(audits))
        found.append("All are in failures.parquet of the run folder.")
        raise RunError("\n".join([*found, f"To continue anyway, run again with {' '.join(remedies)}"]))


def _is_unread(reason: str) -> bool:
    return reason in schema.FILE_REASONS or reason == schema.DAMAGED_EMBEDDINGS


def _reasons(audits: list[Audit], what: str) -> Iterator[str]:
    """Yield a line for each reason: how often, and an example."""
    failures = [row for audit in audits for row in audit.failures.to_pylist()]
    rows = [row for row in failures if _is_unread(row["reason"]) == (what == "files")]
    partly = schema.DAMAGE_REASONS.keys() - {schema.DAMAGED_EMBEDDINGS}
    counts = Counter(row["reason"] for row in rows if row["reason"] not in partly)
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        example = next(row for row in rows if row["reason"] == reason)
        words = [example["shard"], example["key"], example["detail"] and f"({example['detail']})"]
        yield f"{reason} {count:,}, such as {' '.join(repr(word)[1:-1] for word in words if word)}"


def all_failures(audits: Iterable[Audit]) -> pa.Table:
    """Return schema.FAILURES of the whole run."""
    return pa.concat_tables([audit.failures for audit in audits] or [schema.FAILURES.empty_table()]).combine_chunks()


def count_drops(audits: Iterable[Audit]) -> Drops:
    """Return rows by source and rule, None for kept ones."""
    total: Drops = Counter()
    for audit in audits:
        total.update({(audit.unit.source, None if rule == KEPT else rule): n for rule, n in audit.verdicts.items()})
    return total


def check_conservation(audits: Iterable[Audit], emitted: int) -> Counter[str]:
    """Return rows per rule, and `kept`, of the whole run. Raises ConservationError where the sums do not agree."""
    total: Counter[str] = Counter()
    rows = 0
    for audit in audits:
        total.update(audit.verdicts)
        rows += audit.rows
    if total.total() != rows or total[KEPT] != emitted:
        found = f"{rows} samples, {dict(total)} by rule, {emitted} rows in shards"
        raise ConservationError(f"{found}: the sums do not agree")
    return total
