"""Open a finished run for the report, through the read-only connection of `curate sql`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from curate.ask.diff import Diff, diff_runs
from curate.ask.query import connected, find_run
from curate.store.facts import RunFacts, read_facts
from curate.store.store import RunStore

_NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE"}


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, run.json's content, a connection to its tables, and a comparison with another run."""

    folder: RunStore
    facts: RunFacts
    connection: Any
    against: Diff | None = None

    def rows(self, sql: str, **params: object) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        cursor = self.connection.execute(sql, params or None)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, **params: object) -> dict[str, Any]:
        """Return the one row of a query."""
        return self.rows(sql, **params)[0]

    @cached_property
    def funnel(self) -> list[dict[str, Any]]:
        """Lines of the funnel: kind, rule, rows."""
        return self.rows("SELECT kind, rule, rows FROM funnel ORDER BY position")

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by line of the funnel: pool, each rule, kept."""
        return {line["rule"]: line["rows"] for line in self.funnel}

    @cached_property
    def scores(self) -> list[str]:
        """The numeric columns of table `scores`."""
        return [row["column_name"] for row in self.rows("DESCRIBE scores") if row["column_type"] in _NUMBERS][2:]

    @cached_property
    def column_names(self) -> dict[str, str]:
        """The measured columns by their names in lower case: SQL ignores case."""
        return {row["column_name"].lower(): row["column_name"] for row in self.rows("DESCRIBE measured")}

    @property
    def drawn(self) -> str | None:
        """The key of the run's selection; None where all rows that were left are kept."""
        return self.facts.selection.key if self.facts.selection else None

    @property
    def balanced(self) -> bool:
        """Whether entries drew their rows."""
        return self.facts.selection is not None and self.facts.selection.by_entries

    @property
    def has_images(self) -> bool:
        """Whether the pool has images."""
        return self.facts.pool.images


@contextmanager
def open_source_run(url: str, against: str | None = None) -> Iterator[Run]:
    """Open a finished run, and compare it with another one. Raises as `diff_runs` does."""
    folder = find_run(url)
    facts = read_facts(folder)  # first: `_check_unchanged` compares it when the page is written
    with connected(url) as connection:
        yield Run(folder, facts, connection, diff_runs(against, url) if against else None)
