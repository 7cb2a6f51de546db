"""stats.duckdb: a run's small tables, TABLES, for any DuckDB client of version 1.0 or later.

In: a run folder with its tables, failures.parquet and entries.parquet. Views over the large tables are
`curate.publish.views`: they need paths, and these none.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from curate.base import schema
from curate.base.errors import ConservationError
from curate.base.process import temporary_folder
from curate.publish.audit import Drops
from curate.publish.views import sql_type
from curate.store.facts import CaptionWork, DriftFacts, Facts, RunFacts, StepFacts
from curate.store.forgotten import Record
from curate.store.layout import ENTRIES_FILE, FAILURES_FILE, STATISTICS_FILE
from curate.store.store import RunStore

TABLES = (
    "failures", "reasons", "entries", "rules", "run", "drops", "funnel", "sources", "drift", "caption_work", "steps",
    "forgotten",
)  # fmt: skip

_STORAGE = "v1.0.0"  # of DuckDB: what writes in a newer format is not read by older clients


def build_statistics(folder: RunStore, run: RunFacts, drops: Drops, entries: pa.Table | None = None) -> None:
    """Put stats.duckdb into place; `entries` is what entries.parquet holds, unless that is to be read.

    Raises ConservationError where a row's rule is not one of the run's.
    """
    with temporary_folder() as temporary:
        path = f"{temporary}/{STATISTICS_FILE}"
        # One thread takes half the time for tables of this size, and the file is smaller.
        config = {"storage_compatibility_version": _STORAGE, "python_enable_replacements": False, "threads": 1}
        with duckdb.connect(path, config=config) as connection:
            connection.execute(f"BEGIN; CREATE TABLE entries ({', '.join(map(_entry_column, schema.ENTRIES))})")
            for name, table in _small_tables(folder, run, drops, entries).items():
                rows = connection.from_arrow(table)
                rows.insert_into(name) if name == "entries" else rows.create(name)
            connection.execute("COMMIT")
        with open(path, "rb") as source, folder.create(STATISTICS_FILE) as target:
            shutil.copyfileobj(source, target, 1 << 20)


def _entry_column(field: pa.Field) -> str:
    """Return a column of `entries` in SQL: with its compression named, DuckDB need not try all of them."""
    return f"{field.name} {sql_type(field.type)}{' USING COMPRESSION fsst' if field.name == 'entry' else ''}"


def _small_tables(folder: RunStore, run: RunFacts, drops: Drops, entries: pa.Table | None) -> dict[str, pa.Table]:
    dropped = [(source, rule, rows) for (source, rule), rows in drops.items() if rule is not None]
    return {
        "failures": _without_zones(folder.read_parquet(FAILURES_FILE), "attempted"),
        "reasons": _reasons(),
        "entries": folder.read_parquet(ENTRIES_FILE) if entries is None else entries,
        "rules": _rules(run),
        "run": _facts(run),
        "steps": _rows(StepFacts, run.steps),
        "forgotten": _without_zones(Record.read(folder).table, "time"),
        "drift": _rows(DriftFacts, run.drift),
        "caption_work": _rows(CaptionWork, run.caption_work),
        "drops": pa.Table.from_pylist(
            [{"source": source, "rule": rule, "rows": n} for source, rule, n in sorted(dropped)],
            pa.schema([("source", pa.string()), ("rule", pa.string()), ("rows", pa.int64())]),
        ),
        "funnel": _funnel(run, drops),
        "sources": _sources(run, drops),
    }


def _rows(kind: type[Facts], facts: Sequence[Facts]) -> pa.Table:
    return pa.Table.from_pylist([line.to_json() for line in facts], kind.columns())


def _without_zones(table: pa.Table, name: str) -> pa.Table:
    """Return the table with a column's times, in UTC, as every client reads them."""
    return table.set_column(table.column_names.index(name), name, table[name].cast(pa.timestamp("ms")))


def _reasons() -> pa.Table:
    kinds = {"sample": schema.SAMPLE_REASONS, "file": schema.FILE_REASONS, "part of a file": schema.DAMAGE_REASONS}
    rows = [
        (reason, kind, text, reason in schema.MISSING_REASONS)
        for kind, reasons in kinds.items()
        for reason, text in reasons.items()
    ]
    return pa.table(list(zip(*rows, strict=True)), names=["reason", "kind", "meaning", "never_came"])


def _rules(run: RunFacts) -> pa.Table:
    return pa.table(
        {
            "position": pa.array(range(1, len(run.rules) + 1), pa.int32()),
            "name": pa.array([rule.name for rule in run.rules], pa.string()),
            "expression": pa.array([rule.expression for rule in run.rules], pa.string()),
            "threshold": pa.array(
                [None if rule.threshold is None else float(rule.threshold) for rule in run.rules], pa.float64()
            ),
        }
    )


def _facts(run: RunFacts) -> pa.Table:
    """Return run.json as keys and values: text as it is, all else as JSON; without `format`, which is of the file."""
    rows = [
        {"key": key, "value": value if isinstance(value, str) or value is None else json.dumps(value)}
        for key, value in run.to_json().items()
        if key != "format"
    ]
    return pa.Table.from_pylist(rows, pa.schema([("key", pa.string()), ("value", pa.string())]))


def _funnel(run: RunFacts, drops: Drops) -> pa.Table:
    by_rule: Counter[str | None] = Counter()
    for (_, rule), count in drops.items():
        by_rule[rule] += count
    steps = [stage.name for stage in run.stages(bool(by_rule[schema.FORGOTTEN]))[:-1]]
    if strange := sorted(str(name) for name in by_rule if name is not None and name not in steps):
        raise ConservationError(f"decisions name rules that the run does not have: {', '.join(strange)}")
    names = [schema.POOL, *steps, schema.KEPT]
    rows = [by_rule.total(), *(by_rule[name] for name in steps), by_rule[None]]
    return pa.table(
        {
            "position": pa.array(range(len(names)), pa.int32()),
            "kind": pa.array([schema.POOL, *["drop"] * len(steps), schema.KEPT]),
            "rule": pa.array(names),
            "rows": pa.array(rows, pa.int64()),
        }
    )


def _sources(run: RunFacts, drops: Drops) -> pa.Table:
    rows = []
    for position, name in enumerate(dict.fromkeys([*run.sources, *sorted(source for source, _ in drops)])):
        counts = {rule: count for (source, rule), count in drops.items() if source == name}
        pool, failed, kept = sum(counts.values()), counts.get(schema.FAILED, 0), counts.get(None, 0)
        row = {"position": position, "source": name, "pool": pool, "failed": failed}
        rows.append(row | {"dropped": pool - failed - kept, "kept": kept})
    numbers = [(name, pa.int64()) for name in ("pool", "failed", "dropped", "kept")]
    return pa.Table.from_pylist(rows, pa.schema([("position", pa.int32()), ("source", pa.string()), *numbers]))
