"""The record: requests with seals that add up, items once, and what another run takes over."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curate import schema
from curate.store.forgotten import ASKED, FOUND, MET, Record
from curate.store.items import NOTHING, Items
from curate.store.store import RunStore
from tests.forget.victims import images, uids, urls

EMPTY = Record(schema.FORGOTTEN_ITEMS.empty_table())
A, B, C = ("a" * 32, "b" * 32, "c" * 32)
WHEN = datetime(2024, 5, 6, 7, 8, 9, 123, tzinfo=UTC)


def three() -> Record:
    record = EMPTY.append(uids(A, B) | urls("http://x"), ASKED, WHEN, {"uid": [1, 0], "url": [2], "sha256": []}, 3)
    return record.append(uids(C), FOUND, WHEN).append(images("d" * 64), MET, WHEN)


def test_requests_are_told_apart_and_sealed() -> None:
    record = three()
    assert record.table.schema.equals(schema.FORGOTTEN_ITEMS) and not record.broken()
    assert record.table["request"].to_pylist() == [0, 0, 0, 1, 2]
    assert record.table["rows"].to_pylist() == [1, 0, 2, 0, 0]
    assert record.table["shards"].to_pylist() == [3, 3, 3, 0, 0]
    assert record.table["origin"].to_pylist() == [ASKED] * 3 + [FOUND, MET]
    assert len(set(record.table["seal"].to_pylist())) == 3
    assert record.facts.items == 5 and record.facts.requests == 3
    assert record.time_of(A) == WHEN.replace(microsecond=0) and record.time_of("e" * 32) is None
    assert "http" not in str(record.table.to_pylist())


def test_an_item_is_recorded_once() -> None:
    record = three()
    assert record.append(uids(A), ASKED) is record and record.append(NOTHING, ASKED) is record
    assert record.append(uids(A, "e" * 32), ASKED).table["value"].to_pylist()[5:] == ["e" * 32]


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize("column", ["value", "time", "rows", "seal"])
def test_a_change_shows(row: int, column: str) -> None:
    table = three().table
    values = table[column].to_pylist()
    changed = {"value": "e" * 32, "time": datetime(2020, 1, 1, tzinfo=UTC), "rows": 7, "seal": "0" * 64}
    values[row] = changed[column]
    place = table.column_names.index(column)
    forged = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    assert Record(forged).broken()


def test_a_request_that_is_gone_shows() -> None:
    table = three().table
    assert Record(table.filter(pc.not_equal(table["request"], 0))).broken()
    assert Record(table.filter(pc.not_equal(table["request"], 1))).broken()
    assert Record(table.slice(1)).broken()
    # The last one does not, by itself: run.json names the last seal.
    assert not Record(table.slice(0, 4)).broken()
    assert Record(table.slice(0, 4)).facts.seal != three().facts.seal


def test_another_run_takes_it_over(tmp_path: Path) -> None:
    own = EMPTY.append(uids(A), ASKED)
    heir = own.inherit(three())
    assert not heir.broken() and heir.inherit(three()) is heir and own.inherit(own) is own
    assert len(heir) == 5
    assert heir.table["time"].to_pylist()[1:] == three().table["time"].to_pylist()[1:]
    assert heir.table["origin"].to_pylist() == [ASKED, ASKED, ASKED, FOUND, FOUND], "what it met there is given here"
    heir.write(RunStore(str(tmp_path)))
    assert Record.read(RunStore(str(tmp_path))).table.equals(heir.table)
    assert len(Record.read(RunStore(str(tmp_path / "none")))) == 0


def test_the_key_is_of_what_was_given() -> None:
    one, other = EMPTY.append(uids(A, B), ASKED), EMPTY.append(uids(B), ASKED).append(uids(A), FOUND)
    assert EMPTY.key == "" and one.key == other.key != EMPTY.append(uids(A), ASKED).key
    assert one.append(uids(C), MET).key == one.key != one.append(uids(C), FOUND).key
    assert (
        EMPTY.append(Items.of({"sha256": [b"a" * 32]}), ASKED).key
        != EMPTY.append(Items.of({"url": [b"a" * 32]}), ASKED).key
    )
