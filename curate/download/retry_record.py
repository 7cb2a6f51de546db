"""retries.parquet: a record of the URLs that a run retries, by list, row, and round.

Each `curate run --retry` adds a round. The record has no URLs. It identifies a list by its digest, and a row by its
number.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import DamagedError
from curate.store.facts import RetriesFacts, names_retries
from curate.store.layout import RETRIES_FILE
from curate.store.store import RunStore
from curate.store.validity import recorded_digest

_log = logging.getLogger(__name__)


class Retry(NamedTuple):
    """The rows of a list that are retried."""

    round: int
    rows: tuple[int, ...]  # row numbers in the list, ascending
    keys: tuple[str, ...]  # keys of the samples before this round; `attempts` are also those before it
    attempts: tuple[int, ...]


@dataclass(frozen=True)
class Retries:
    """The record of a run: `table` has the columns of schema.RETRIES."""

    table: pa.Table = field(default_factory=schema.RETRIES.empty_table)

    @classmethod
    def read(cls, folder: RunStore) -> "Retries":
        """Return the record in a run folder. It is empty if there is none, or if it is damaged, which is logged."""
        digest, is_there = recorded_digest(folder, RETRIES_FILE), folder.exists(RETRIES_FILE)
        if not is_there and not names_retries(folder):
            return cls()
        error = "differs from what was written" if is_there else "is missing"
        if is_there and (digest is None or digest.is_of(folder.digest(RETRIES_FILE))):
            with suppress(DamagedError, pa.ArrowException, ValueError):
                return cls(folder.read_parquet(RETRIES_FILE).cast(schema.RETRIES))
            error = "is damaged"
        _log.warning("%s: %s; curate omits images from earlier retries; use --retry", folder.path(RETRIES_FILE), error)
        return cls()

    def write(self, folder: RunStore) -> None:
        """Write the record, or delete the file if the record is empty."""
        if len(self):
            folder.write_parquet(RETRIES_FILE, self.table)
        else:
            folder.delete_file(RETRIES_FILE)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def key(self) -> str:
        """A digest of the rows to retry; empty if there are none."""
        return ids.table_digest(self.table.drop_columns(["key", "attempts"])) if len(self) else ""

    @property
    def rounds(self) -> int:
        return pc.max(self.table["round"]).as_py() or 0

    @property
    def facts(self) -> RetriesFacts:
        return RetriesFacts(rounds=self.rounds, rows=len(self), digest=self.key)

    def with_round(self, rows: pa.Table) -> "Retries":
        """Return the record with one more round for these rows (all columns but `round`), if there are any."""
        rows = rows.append_column("round", pa.repeat(pa.scalar(self.rounds + 1, pa.int32()), len(rows)))
        rows = rows.select(schema.RETRIES.names).cast(schema.RETRIES)
        rows = rows.sort_by([(name, "ascending") for name in ("source", "list", "row")])
        return Retries(pa.concat_tables([self.table, rows]).combine_chunks())

    def by_list(self, source: str) -> dict[str, pa.Table]:
        """Return the rows in each list of a source, by round and row."""
        table = self.table.filter(pc.equal(self.table["source"], pa.scalar(source)))
        table = table.sort_by([(name, "ascending") for name in ("list", "round", "row")])
        first, lists = 0, {}
        counts = pc.value_counts(table["list"])  # in the order in which they appear
        for key, count in zip(*(counts.field(name).to_pylist() for name in ("values", "counts")), strict=True):
            lists[key] = table.slice(first, count)
            first += count
        return lists
