"""stats.duckdb: the small tables of a run, TABLES, for any DuckDB client from version 1.0 on.

Views over the large tables are in `curate.publish.views`, because they need paths.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

import duckdb
import pyarrow as pa

from curate.base import schema, stages
from curate.base.errors import ConservationError
from curate.base.process import temporary_folder
from curate.publish.audit import Drops
from curate.publish.views import quote, quote_name
from curate.store.facts import CaptionWork, DriftFacts, Facts, RunFacts, StepFacts, UsedFacts
from curate.store.forgotten import Record
from curate.store.layout import ENTRIES_FILE, FAILURES_FILE, STATISTICS_FILE
from curate.store.store import RunStore

TABLES = (
    "failures", "reasons", "entries", "rules", "run", "drops", "funnel", "sources", "drift", "caption_work", "steps",
    "used", "forgotten",
)  # fmt: skip

_TEXT, _INT32, _INT64 = pa.string(), pa.int32(), pa.int64()
_STORAGE = "v1.0.0"  # DuckDB's storage format: older clients cannot read newer formats


def write_stats(folder: RunStore, run: RunFacts, drops: Drops, entries: pa.Table | None = None) -> None:
    """Write stats.duckdb. By default, `entries` come from entries.parquet.

    Raises ConservationError for an unknown rule.
    """
    tables = _small_tables(folder, run)
    listed = folder.read_parquet(ENTRIES_FILE) if entries is None else entries
    tables["entries"] = listed.select(schema.ENTRIES.names).cast(schema.ENTRIES)
    with temporary_folder() as temporary, _connect().cursor() as connection:
        path = f"{temporary}/{STATISTICS_FILE}"
        database = quote_name(path)
        connection.execute(f"ATTACH {quote(path)} AS {database} (STORAGE_VERSION {quote(_STORAGE)}); USE {database}")
        try:
            _write_tables(connection, tables, _counted(run, drops))
        finally:
            connection.execute(f"USE memory; DETACH {database}")
        with open(path, "rb") as source, folder.create(STATISTICS_FILE) as target:
            shutil.copyfileobj(source, target, 1 << 20)


@cache
def _connect() -> Any:
    """Return this process's connection. To make one for each run takes longer than to write the tables of a small run.

    For tables of this size, one thread needs half the time, and gives a smaller file.
    """
    return duckdb.connect(":memory:", config={"python_enable_replacements": False, "threads": 1})


def _write_tables(connection: Any, tables: dict[str, Any], counted: dict[str, pa.Table]) -> None:
    connection.begin()
    try:
        for name, table in tables.items():
            connection.from_arrow(table).create(name)
        for name, table in counted.items():
            connection.register(name, table)
        connection.execute(resources.files("curate.publish").joinpath("stats.sql").read_text("utf-8"))
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _small_tables(folder: RunStore, run: RunFacts) -> dict[str, Any]:
    reasons = {"sample": schema.SAMPLE_REASONS, "file": schema.FILE_REASONS, "part of a file": schema.DAMAGE_REASONS}
    meanings = [
        (name, kind, text, name in schema.MISSING_REASONS)
        for kind, of_kind in reasons.items()
        for name, text in of_kind.items()
    ]
    limits = [None if rule.threshold is None else float(rule.threshold) for rule in run.rules]
    rules = [(i, rule.name, rule.expression, limits[i - 1]) for i, rule in enumerate(run.rules, 1)]
    facts = [(key, value) for key, value in run.to_json().items() if key != "format"]
    facts = [(key, value if isinstance(value, str | None) else json.dumps(value)) for key, value in facts]
    return {
        "failures": _read_failures(folder),
        "reasons": _table(meanings, reason=_TEXT, kind=_TEXT, meaning=_TEXT, never_came=pa.bool_()),
        "rules": _table(rules, position=_INT32, name=_TEXT, expression=_TEXT, threshold=pa.float64()),
        "run": _table(facts, key=_TEXT, value=_TEXT),
        "steps": _rows(StepFacts, run.steps),
        "used": _rows(UsedFacts, run.used),
        "forgotten": _without_zones(Record.read(folder).table, "time"),
        "drift": _rows(DriftFacts, run.drift),
        "caption_work": _rows(CaptionWork, run.caption_work),
    }


def _read_failures(folder: RunStore) -> pa.RecordBatchReader:
    """Yield the failures in batches, because there may be as many failures as rows."""

    def batches() -> Iterator[pa.RecordBatch]:
        with folder.open_parquet(FAILURES_FILE) as file:
            yield from chain.from_iterable(map(pa.Table.to_batches, file.read_groups()))

    kinds = _without_zones(schema.FAILURES.empty_table(), "attempted").schema
    return pa.RecordBatchReader.from_batches(schema.FAILURES, batches()).cast(kinds)


def _table(lines: Iterable[tuple[Any, ...]], **columns: pa.DataType) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in lines], pa.schema(columns))


def _rows(kind: type[Facts], facts: Sequence[Facts]) -> pa.Table:
    return pa.Table.from_pylist([line.to_json() for line in facts], kind.columns())


def _without_zones(table: pa.Table, name: str) -> pa.Table:
    """Return the table with the times of a column in UTC, in a form that every client can read."""
    return table.set_column(table.column_names.index(name), name, table[name].cast(pa.timestamp("ms")))


def _counted(run: RunFacts, drops: Drops) -> dict[str, pa.Table]:
    """Return the inputs for stats.sql. Raises ConservationError for rules that the run does not have."""
    rules = {rule for _, rule in drops if rule is not None}
    steps = [verdict.name for verdict in run.verdicts(stages.FORGOTTEN in rules)[:-1]]
    if strange := sorted(rules.difference(steps)):
        raise ConservationError(f"decisions name rules that the run does not have: {', '.join(strange)}")
    counted = ((*key, rows) for key, rows in drops.items())
    return {
        "counted": _table(counted, source=_TEXT, rule=_TEXT, rows=_INT64),
        "steps": _table(enumerate(steps, 1), position=_INT32, rule=_TEXT),
        "listed": _table(enumerate(run.sources), position=_INT32, source=_TEXT),
    }
