"""A finished run that is open for curate's own statements, through the read-only connection of `curate sql`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from curate.ask.library import report_sql
from curate.ask.query import find_run, open_run
from curate.base.errors import RunError, reraised
from curate.store.facts import RunFacts, read_facts
from curate.store.store import RunStore

_NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE"}


@dataclass(frozen=True)
class OpenRun:
    """A finished run: its folder, run.json's content, and a connection to its tables."""

    folder: RunStore
    facts: RunFacts
    connection: Any

    def table(self, sql: str, **params: object) -> pa.Table:
        table: pa.Table = self.connection.sql(sql, params=params).to_arrow_table()
        return table

    def rows(self, sql: str, **params: object) -> list[dict[str, Any]]:
        cursor = self.connection.execute(sql, params or None)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def report(self, name: str, **params: object) -> list[dict[str, Any]]:
        """Return the rows that sql/report/NAME.sql selects."""
        return self.rows(report_sql(name), **params)

    @cached_property
    def funnel(self) -> list[dict[str, Any]]:
        """Lines of the funnel: kind, rule, rows."""
        return self.rows("SELECT kind, rule, rows FROM funnel ORDER BY position")

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by line of the funnel, in its order: pool, each rule, kept."""
        return {line["rule"]: line["rows"] for line in self.funnel}

    @cached_property
    def scores(self) -> list[str]:
        """The numeric columns of tables `scores`, `related` and `derived`."""
        described = [row for table in ("scores", "related", "derived") for row in self.rows(f"DESCRIBE {table}")[3:]]
        return [row["column_name"] for row in described if row["column_type"] in _NUMBERS]

    @cached_property
    def column_names(self) -> dict[str, str]:
        """The measured columns by their names in lower case: SQL ignores case."""
        return {row["column_name"].lower(): row["column_name"] for row in self.rows("DESCRIBE measured")}

    @property
    def drawn(self) -> str | None:
        """The key of the run's selection; None if all remaining rows are kept."""
        return self.facts.selection.key if self.facts.selection else None

    @property
    def balanced(self) -> bool:
        return self.facts.selection is not None and self.facts.selection.by_entries


@contextmanager
def connected(url: str) -> Iterator[OpenRun]:
    """Open a finished run. Raises like `open_run`, and RunError on damage found while it is open."""
    folder = find_run(url)
    facts = read_facts(folder)  # read first, so that a later comparison detects changes
    damaged = reraised(RunError, f"{url}: cannot be read", duckdb.Error, remedy=f"; see `curate verify {url}`")
    with open_run(url) as connection, damaged:
        yield OpenRun(folder, facts, connection)
