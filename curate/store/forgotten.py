"""forgotten.parquet: a record of the items that were removed from a run or are blocked, and when, but not of who asked.

In: items. Out: one row per item (schema.FORGOTTEN_ITEMS), in the order of requests. The record has the sha256 of a
URL's text instead of the URL. Rows are only appended. run.json has their number and a digest, so that curate notices if
the record is lost or changed. The record is also the blocklist: a run with `--reuse` inherits the older run's record,
and blocks all of its items.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import DamagedError, RunError
from curate.base.wording import one_line, pluralize
from curate.store.facts import ForgottenFacts, read_forgotten
from curate.store.items import KINDS, WIDTHS, Hashes, Items, column_hashes
from curate.store.layout import FORGOTTEN_FILE, RUN_FILE
from curate.store.store import RunStore
from curate.store.validity import recorded_digest

# Why an item is in the record: a request or blocklist names it; it belongs to a row that a request names; or a later
# run with this record found it in a row with such an item.
REQUESTED, LINKED, ENCOUNTERED = "requested", "linked", "encountered"


@dataclass(frozen=True)
class Record:
    """A run's record: `table` has the columns of schema.FORGOTTEN_ITEMS."""

    table: pa.Table

    @classmethod
    def read(cls, folder: RunStore) -> "Record":
        """Return the record in a run folder, empty if there is none. Raises RunError if the file is not a record."""
        if not folder.exists(FORGOTTEN_FILE):
            return cls(schema.FORGOTTEN_ITEMS.empty_table())
        try:
            table = folder.read_parquet(FORGOTTEN_FILE)
            return cls(table.select(schema.FORGOTTEN_ITEMS.names).cast(schema.FORGOTTEN_ITEMS))
        except (KeyError, ValueError, pa.ArrowException, DamagedError) as error:  # other columns or types, or damaged
            problem = one_line(str(error).partition("; delete it")[0])
            reason = f"is not a record of forgotten items ({problem}); restore it from a copy"
            raise RunError(f"{folder.url}: {FORGOTTEN_FILE} {reason}") from None

    @classmethod
    def read_checked(cls, folder: RunStore) -> "Record":
        """Return a folder's record. Raises RunError unless it is as curate wrote it and extends run.json's record."""
        record = cls.read(folder)
        try:
            named, is_lost = read_forgotten(folder), not folder.exists(RUN_FILE)
        except DamagedError:
            named, is_lost = None, True
        if named is not None:
            is_complete, items = record.extends(named), f" ({pluralize(named.items, 'item')})"
        else:  # if an intact run.json names none, a first request may have been killed before it wrote the record
            is_complete, items = not is_lost or record.is_written(folder), ""
        if is_complete:
            return record
        error = f"does not match its digest in {RUN_FILE}" if len(record) else "is missing"
        remedy = "restore it from a copy: without it, forgotten samples would return"
        raise RunError(f"{folder.url}: {FORGOTTEN_FILE} {error}{items}; {remedy}")

    def is_written(self, folder: RunStore) -> bool:
        """Return whether the record is as curate wrote it, without looking at run.json."""
        digest = recorded_digest(folder, FORGOTTEN_FILE)
        if digest is None or recorded_digest(folder, RUN_FILE) is None:  # a claim writes the record first
            return True
        return folder.exists(FORGOTTEN_FILE) and digest.is_of(folder.digest(FORGOTTEN_FILE))

    def write(self, folder: RunStore) -> None:
        folder.write_parquet(FORGOTTEN_FILE, self.table)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def items(self) -> Items:
        return _items(self.table)

    @property
    def requested(self) -> int:
        """The number of items that requests and blocklists named."""
        return int(np.count_nonzero(pc.equal(self.table["origin"], pa.scalar(REQUESTED)).to_numpy()))

    @cached_property
    def key(self) -> str:
        """A digest of the items that were blocked before the run began; empty if there were none.

        They determine what the run keeps. The items that the run finds later follow from these and the pool.
        """
        is_before = pc.not_equal(self.table["origin"], pa.scalar(ENCOUNTERED))
        before = self.items if pc.all(is_before).as_py() else _items(self.table.filter(is_before))
        return ids.digest([hashlib.sha256(before[kind].tobytes()).hexdigest() for kind in KINDS]) if len(before) else ""

    @cached_property
    def digest(self) -> str:
        position = self.table.column_names.index("time")
        return ids.table_digest(self.table.set_column(position, "time", self.table["time"].cast(pa.int64())))

    @property
    def facts(self) -> ForgottenFacts:
        """What run.json says about this record."""
        requests = len(pc.unique(self.table["request"]))
        return ForgottenFacts(items=len(self), requests=requests, key=self.key, digest=self.digest)

    def extends(self, facts: ForgottenFacts) -> bool:
        """Return whether this record begins with the rows of an earlier record that has these `facts`."""
        first = Record(self.table.slice(0, facts.items))
        return len(first) == facts.items and first.digest == facts.digest

    @property
    def is_settled(self) -> bool:
        """Whether the last items were found by a run. Then all items before them have been looked up."""
        return len(self) > 0 and self.table["origin"][-1].as_py() == ENCOUNTERED

    def append(
        self,
        items: Items,
        origin: Mapping[str, Any] | str,
        time: datetime | None = None,
        rows: Mapping[str, Any] | None = None,
        shards: int = 0,
    ) -> "Record":
        """Return the record with one more request for the items that it does not have yet; itself if it has them all.

        `origin` is the reason for all items, or an array for each kind with a value for each of `items[kind]`.
        `rows[kind]` is the number of pool rows that each item names, by default 0. `time` is in UTC. `shards` is the
        number of changed shards.
        """
        parts = []
        for kind in KINDS:
            fresh = np.flatnonzero(~self.items.holds(kind, items[kind]))
            values = ids.hex_strings(items[kind][fresh].tobytes(), WIDTHS[kind])
            reasons = pa.repeat(origin, len(fresh)) if isinstance(origin, str) else origin[kind].take(pa.array(fresh))
            named = np.zeros(len(items[kind])) if rows is None else np.asarray(rows[kind])
            counts = pa.array(named[fresh].astype(np.int64))
            columns = {"kind": pa.repeat(kind, len(fresh)), "value": values, "origin": reasons, "rows": counts}
            parts.append(pa.table(columns))
        table = pa.concat_tables(parts)
        moment = pa.scalar((time or datetime.now(UTC)).replace(microsecond=0))
        return self._extended(table.append_column("time", pa.repeat(moment, len(table))), shards)

    def inherit(self, other: "Record") -> "Record":
        """Return the record with the items that another run's record has in addition, with their times."""
        fresh = np.zeros(len(other.table), bool)
        for kind in KINDS:
            of_kind = pc.equal(other.table["kind"], pa.scalar(kind)).to_numpy()
            fresh[of_kind] = ~self.items.holds(kind, _values(other.table, kind))
        rows = other.table.filter(pa.array(fresh))
        origin = pc.if_else(pc.equal(rows["origin"], pa.scalar(ENCOUNTERED)), pa.scalar(LINKED), rows["origin"])
        columns = {"origin": origin, "rows": np.zeros(len(rows), np.int64)}
        return self._extended(pa.table({name: rows[name] for name in ("kind", "value", "time")} | columns), 0)

    def time_of(self, value: str, kind: str = "uid") -> datetime | None:
        """Return when a uid, or another value of the record (hex digits), was forgotten."""
        times = self.table.filter((pc.field("kind") == kind) & (pc.field("value") == value))["time"].to_pylist()
        return times[0] if times else None

    def _extended(self, rows: pa.Table, shards: int) -> "Record":
        """Return the record with these rows as its next request; itself if there are no rows."""
        if not len(rows):
            return self
        constants = {"request": len(pc.unique(self.table["request"])), "shards": shards}
        for name, value in constants.items():
            rows = rows.append_column(name, pa.repeat(value, len(rows)))
        rows = rows.select(schema.FORGOTTEN_ITEMS.names).cast(schema.FORGOTTEN_ITEMS)
        return Record(pa.concat_tables([self.table, rows]).combine_chunks())


def count_forgotten_since(folder: RunStore, reused: RunStore | None) -> int:
    """Return how many items the reused run has forgotten after this run inherited its record."""
    return len(Record.read(reused).items - Record.read(folder).items) if reused else 0


def _items(table: pa.Table) -> Items:
    return Items.of({kind: [_values(table, kind).tobytes()] for kind in KINDS})


def _values(table: pa.Table, kind: str) -> Hashes:
    """Return the values of a kind, in their order. URLs and images are in the record as hashes."""
    column = table.filter(pc.equal(table["kind"], pa.scalar(kind)))["value"]
    return column_hashes(column, "sha256" if kind == "url" else kind)[0]


def origins(items: Items, requested: Items) -> dict[str, pa.Array]:
    """Return, for each kind of `items`, the origin of each item: `requested` or `linked`."""
    named = {kind: pa.array(requested.holds(kind, items[kind])) for kind in KINDS}
    return {kind: pc.if_else(named[kind], pa.scalar(REQUESTED), pa.scalar(LINKED)) for kind in KINDS}


def forgotten_mask(samples: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows of `samples` (status, characters) are forgotten: they are readable but have no caption."""
    mask = pc.and_(pc.equal(samples["status"], pa.scalar(schema.OK)), samples["characters"].is_null())
    return np.asarray(mask.to_numpy())
