"""The record: requests, items once, a digest that shows any change, and what another run inherits."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base import schema
from curate.store.forgotten import ENCOUNTERED, LINKED, REQUESTED, Record
from curate.store.items import NOTHING, Items
from curate.store.store import RunStore
from tests.kit.forgetting import images, uids, urls

EMPTY = Record(schema.FORGOTTEN_ITEMS.empty_table())
A, B, C = ("a" * 32, "b" * 32, "c" * 32)
WHEN = datetime(2024, 5, 6, 7, 8, 9, 123, tzinfo=UTC)


def three():
    record = EMPTY.append(uids(A, B) | urls("http://x"), REQUESTED, WHEN, {"uid": [1, 0], "url": [2], "sha256": []}, 3)
    return record.append(uids(C), LINKED, WHEN).append(images("d" * 64), ENCOUNTERED, WHEN)


def test_requests_are_numbered():
    record = three()
    assert record.table.schema.equals(schema.FORGOTTEN_ITEMS)
    assert record.table["request"].to_pylist() == [0, 0, 0, 1, 2]
    assert record.table["rows"].to_pylist() == [1, 0, 2, 0, 0]
    assert record.table["shards"].to_pylist() == [3, 3, 3, 0, 0]
    assert record.table["origin"].to_pylist() == [REQUESTED] * 3 + [LINKED, ENCOUNTERED]
    assert record.facts.items == 5 and record.facts.requests == 3
    assert record.time_of(A) == WHEN.replace(microsecond=0) and record.time_of("e" * 32) is None
    assert "http" not in str(record.table.to_pylist())


def test_an_item_is_recorded_once():
    record = three()
    assert record.append(uids(A), REQUESTED) is record and record.append(NOTHING, REQUESTED) is record
    assert record.append(uids(A, "e" * 32), REQUESTED).table["value"].to_pylist()[5:] == ["e" * 32]


@pytest.mark.parametrize("row", [0, 4])
@pytest.mark.parametrize("column", ["value", "origin", "time", "rows", "shards"])
def test_a_change_is_noticed(row, column):
    table = three().table
    values = table[column].to_pylist()
    origin = "linked" if values[row] != "linked" else "requested"
    changed = {"value": "e" * 32, "origin": origin, "rows": 7, "shards": 9, "time": datetime(2020, 1, 1, tzinfo=UTC)}
    values[row] = changed[column]
    place = table.column_names.index(column)
    forged = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    assert three().extends(three().facts) and not Record(forged).extends(three().facts)


def test_a_lost_item_is_noticed_and_a_longer_record_extends_it():
    table = three().table
    for left in (table.slice(1), table.slice(0, 4), table.filter(pc.not_equal(table["request"], 1)), table.slice(0, 0)):
        assert not Record(left).extends(three().facts)
    longer = three().append(uids("e" * 32), REQUESTED)
    assert longer.extends(three().facts) and longer.facts != three().facts and not three().extends(longer.facts)


def test_another_run_inherits_it(tmp_path):
    own = EMPTY.append(uids(A), REQUESTED)
    heir = own.inherit(three())
    assert heir.inherit(three()) is heir and own.inherit(own) is own
    assert len(heir) == 5
    assert heir.table["time"].to_pylist()[1:] == three().table["time"].to_pylist()[1:]
    # Items that it encountered there are blocked here from the beginning.
    assert heir.table["origin"].to_pylist() == [REQUESTED, REQUESTED, REQUESTED, LINKED, LINKED]
    heir.write(RunStore(str(tmp_path)))
    assert Record.read(RunStore(str(tmp_path))).table.equals(heir.table)
    assert len(Record.read(RunStore(str(tmp_path / "none")))) == 0


def test_the_key_depends_on_the_kind():
    of_image, of_url = (EMPTY.append(Items.of({kind: [b"a" * 32]}), REQUESTED) for kind in ("sha256", "url"))
    assert of_image.key != of_url.key and EMPTY.key == ""


named = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([REQUESTED, LINKED, ENCOUNTERED]))


def recorded(origins):
    record = EMPTY
    for digit, origin in origins.items():
        record = record.append(uids(digit * 32), origin)
    return record


@given(named, named)
def test_the_key_changes_if_and_only_if_what_was_blocked_before_does(one, other):
    before = [{digit for digit, origin in origins.items() if origin != ENCOUNTERED} for origins in (one, other)]
    assert (recorded(one).key == recorded(other).key) == (before[0] == before[1])


@given(named, named)
def test_the_digest_changes_if_and_only_if_a_row_does(one, other):
    same = recorded(one).table.drop_columns("time").equals(recorded(other).table.drop_columns("time"))
    records = [Record(at_one_time(recorded(origins).table)) for origins in (one, other)]
    assert (records[0].digest == records[1].digest) == same


def at_one_time(table):
    place = table.column_names.index("time")
    return table.set_column(place, table.schema.field(place), pa.array([WHEN] * len(table), pa.timestamp("ms", "UTC")))
