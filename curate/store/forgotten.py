"""forgotten.parquet: what was taken out of a run and what is blocked in it, when; never who asked.

In: items. Out: one row an item (schema.FORGOTTEN_ITEMS), in requests, in the order in which they came. A URL stands as the
sha256 of its text, so the record holds none. Each request has a seal: the digest of its rows and of the seal before it, so a
record that was changed, or has lost a request, does not add up; run.json holds the last seal.

The record is also the blocklist: a run with `--reuse` takes over all of the older run's, and blocks what it names.
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

from curate import ids, schema
from curate.errors import RunError
from curate.store.facts import ForgottenFacts, read_forgotten
from curate.store.items import KINDS, NOTHING, WIDTHS, Hashes, Items, hex_of
from curate.store.layout import FORGOTTEN_FILE, RUN_FILE
from curate.store.store import RunStore

# Why an item is in the record: it was asked for; it names a row that was; it names one that a run of this folder met.
ASKED, FOUND, MET = "asked", "found", "met"


@dataclass(frozen=True)
class Record:
    """A run's record."""

    table: pa.Table

    @classmethod
    def read(cls, folder: RunStore) -> "Record":
        """That of a run folder; an empty one where it has none. Raises RunError where the file is no record."""
        if not folder.exists(FORGOTTEN_FILE):
            return cls(schema.FORGOTTEN_ITEMS.empty_table())
        try:
            return cls(folder.read_parquet(FORGOTTEN_FILE).cast(schema.FORGOTTEN_ITEMS))
        except (ValueError, pa.ArrowException) as error:  # other columns, or other types
            fault = " ".join(str(error).split())
            raise RunError(f"{folder.url}: {FORGOTTEN_FILE} is no record ({fault}); put it back from a copy") from None

    @classmethod
    def read_named(cls, folder: RunStore) -> "Record":
        """That of a run folder, if it is the one that run.json names, or goes on from it, and is as it was written.

        Raises:
            RunError: it is not: without it what was forgotten would come back.
        """
        record = cls.read(folder)
        named = read_forgotten(folder)
        lacks = named is not None and named.seal not in record.table["seal"].to_pylist()
        if lacks or record.broken():
            found = "missing" if not len(record) else "another one" if lacks else "not as it was written"
            and_names = f", and {RUN_FILE} names one of {named.items:,} items" if named else ""
            raise RunError(
                f"{folder.url}: {FORGOTTEN_FILE} is {found}{and_names}; put it back from a copy: "
                "without it what was forgotten would come back"
            )
        return record

    def write(self, folder: RunStore) -> None:
        """Puts it into place."""
        folder.write_parquet(FORGOTTEN_FILE, self.table)

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def items(self) -> Items:
        """All that is blocked."""
        return self._items(self.table)

    @cached_property
    def key(self) -> str:
        """Digest of what was blocked before a run began, which decides what it keeps; empty where nothing is.

        What the run met follows from that and from its pool.
        """
        given = self._items(self.table.filter(pc.not_equal(self.table["origin"], MET)))
        return ids.digest([hashlib.sha256(given[kind].tobytes()).hexdigest() for kind in KINDS]) if len(given) else ""

    @property
    def facts(self) -> ForgottenFacts:
        """What run.json says of it."""
        seals = self.table["seal"].to_pylist()
        return ForgottenFacts(
            items=len(self), requests=len(set(seals)), key=self.key, seal=seals[-1] if seals else None
        )

    @property
    def settled(self) -> bool:
        """Whether its last request is of what a run met: names have spread from all that stand before."""
        return len(self) > 0 and self.table["origin"][-1].as_py() == MET

    def append(
        self,
        items: Items,
        origin: Mapping[str, Any] | str,
        time: datetime | None = None,
        rows: Mapping[str, Any] | None = None,
        shards: int = 0,
    ) -> "Record":
        """The record with one more request of those items that are not in it yet; itself where all are.

        Args:
            items: what is forgotten.
            origin: why, for all of them, or kind → list, as long as `items[kind]`.
            time: when, in UTC; now by default.
            rows: kind → how many rows of the pool each of `items[kind]` named; 0 by default.
            shards: how many shards the request changed.
        """
        columns: dict[str, list[Any]] = {"kind": [], "value": [], "origin": [], "rows": []}
        for kind in KINDS:
            fresh = np.flatnonzero(~self.items.holds(kind, items[kind]))
            columns["kind"] += [kind] * len(fresh)
            columns["value"] += hex_of(items[kind][fresh])
            columns["origin"] += [origin if isinstance(origin, str) else origin[kind][i] for i in fresh]
            columns["rows"] += [0 if rows is None else int(rows[kind][i]) for i in fresh]
        count = len(columns["kind"])
        if not count:
            return self
        moment = (time or datetime.now(UTC)).replace(microsecond=0)
        return self._sealed(columns | {"time": [moment] * count, "shards": [shards] * count})

    def inherit(self, other: "Record") -> "Record":
        """The record with what another run's holds and it does not, times as they are there."""
        fresh = np.zeros(len(other.table), bool)
        for kind in KINDS:
            own = pc.equal(other.table["kind"], kind).to_numpy(zero_copy_only=False)
            values = np.frombuffer(_values(other.table["value"].filter(pa.array(own))), f"S{WIDTHS[kind]}")
            fresh[own] = ~self.items.holds(kind, values)
        rows = other.table.filter(pa.array(fresh))
        if not len(rows):
            return self
        columns = {name: rows[name].to_pylist() for name in ("kind", "value", "origin", "time")}
        columns["origin"] = [FOUND if origin == MET else origin for origin in columns["origin"]]
        return self._sealed(columns | {"rows": [0] * len(rows), "shards": [0] * len(rows)})

    def broken(self) -> bool:
        """Whether seals do not add up."""
        last = ""
        for number in pc.unique(self.table["request"]).to_pylist():
            part = self.table.filter(pc.equal(self.table["request"], number))
            last = _seal(part, last)
            if pc.unique(part["seal"]).to_pylist() != [last]:
                return True
        return False

    def time_of(self, value: str, kind: str = "uid") -> datetime | None:
        """When a uid, or another value of the record (hex digits), was forgotten."""
        named = pc.and_(pc.equal(self.table["kind"], kind), pc.equal(self.table["value"], value))
        times = self.table.filter(named)["time"].to_pylist()
        return times[0] if times else None

    def _sealed(self, columns: dict[str, list[Any]]) -> "Record":
        count = len(columns["kind"])
        request = len(set(self.table["request"].to_pylist()))
        seals = self.table["seal"].to_pylist()
        plain = columns | {"request": [request] * count, "seal": [""] * count}
        table = pa.table({name: plain[name] for name in schema.FORGOTTEN_ITEMS.names}, schema=schema.FORGOTTEN_ITEMS)
        seal = _seal(table, seals[-1] if seals else "")
        place = table.column_names.index("seal")
        table = table.set_column(place, schema.FORGOTTEN_ITEMS.field(place), pa.array([seal] * count, pa.string()))
        return Record(pa.concat_tables([self.table, table]).combine_chunks())

    @staticmethod
    def _items(table: pa.Table) -> Items:
        if not len(table):
            return NOTHING
        return Items.of({kind: [_values(table.filter(pc.equal(table["kind"], kind))["value"])] for kind in KINDS})


def _values(column: pa.ChunkedArray) -> bytes:
    return bytes.fromhex("".join(column.to_pylist()))


def _seal(rows: pa.Table, before: str) -> str:
    """The digest of a request's rows and of the seal before it: 64 hex digits."""
    text = rows.drop_columns(["seal"]).cast(pa.schema([(f.name, f.type) for f in rows.schema if f.name != "seal"]))
    state = hashlib.sha256(before.encode())
    for row in zip(*(_texts(column) for column in text.columns), strict=True):
        state.update(("\n" + "\t".join(row)).encode())
    return state.hexdigest()


def _texts(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return [str(value) for value in column.to_pylist()]


def origins(items: Items, asked: Items) -> dict[str, list[str]]:
    """Of each item whether it was asked for."""
    return {kind: [ASKED if own else FOUND for own in asked.holds(kind, items[kind]).tolist()] for kind in KINDS}


def counts(items: Items, names: Mapping[str, Hashes]) -> dict[str, Any]:
    """Of each item how many times it is among the names of rows (unsorted, one for each row)."""
    found = {}
    for kind in KINDS:
        values, times = np.unique(names[kind], return_counts=True)
        count = np.zeros(len(items[kind]), np.int64)
        here = np.searchsorted(items[kind], values)
        known = items.holds(kind, values)
        count[here[known]] = times[known]
        found[kind] = count
    return found


def forgotten_mask(samples: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows nothing is left of: readable, and without a caption (its length tells, which is less to read).

    Args:
        samples: columns `status` and `characters` of table `samples`.
    """
    mask = pc.and_(pc.equal(samples["status"], schema.OK), samples["characters"].is_null())
    return np.asarray(mask.to_numpy())
