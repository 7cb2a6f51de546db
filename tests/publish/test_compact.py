"""Chunks: how units are laid out in them, and what one file says of many units."""

import io
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import DamagedError
from curate.publish.publish import CHUNK_ROWS, CHUNK_UNITS, MIN_FEWER, MIN_UNITS, compact_units, lay_out_chunks
from curate.store.chunks import GROUP_ROWS, Chunk, find_chunks
from curate.store.store import RunStore
from curate.store.tables import ChunkTables, UnitTables

UNITS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2 * CHUNK_ROWS) | st.integers(0, 50)), max_size=300)


def laid_out(units):
    """The chunks of units with these sources and rows."""
    sources = [(source, len(list(of))) for source, of in itertools.groupby(source for source, _ in units)]
    return lay_out_chunks(sources, {number: rows for number, (_, rows) in enumerate(units)})


@given(UNITS)
def test_a_chunk_is_of_one_source_and_not_too_large(units):
    chunks = laid_out(units)
    assert [number for chunk in chunks for number in chunk.units] == list(range(len(units)))
    for chunk in chunks:
        assert len({units[number][0] for number in chunk.units}) == 1
        assert len(chunk.units) == 1 or sum(units[number][1] for number in chunk.units) <= CHUNK_ROWS
    assert len(chunks) == len(units) or (len(units) > MIN_UNITS and len(units) >= MIN_FEWER * len(chunks))


def test_when_units_are_put_together():
    assert laid_out([]) == []
    assert len(laid_out([("a", 8)] * MIN_UNITS)) == MIN_UNITS
    assert laid_out([("a", 8)] * 65) == [Chunk(0, 64)]
    assert laid_out([("a", 8)] * 40 + [("b", 8)] * 40) == [Chunk(0, 39), Chunk(40, 79)]
    assert len(laid_out([("a", CHUNK_ROWS // 3 + 1)] * 100)) == 100  # half as many files are not few enough
    assert len(laid_out([("a", CHUNK_ROWS // 4)] * 100)) == 25
    assert [len(chunk.units) for chunk in laid_out([("a", 0)] * 2500)] == [CHUNK_UNITS] * 5


def write_units(store):
    """A row-aligned table and one of texts, of units of 0 to 3,000 rows, each with a key and a note of its own, or none."""
    tables = []
    for unit, rows in enumerate((3, 0, 1000, 900, 3000, 200)):
        table = pa.table(
            {
                "unit": pa.array([unit] * rows, pa.int32()),
                "text": pa.array([f"{unit} {row}" for row in range(rows)], pa.string()),
                "list": pa.array([[row] for row in range(rows)], pa.list_(pa.int32())),
            }
        )
        of_unit = UnitTables(store, unit)
        of_unit.write("matches", table, f"key {unit}", {"ünits": [unit, 0.1]} if unit % 2 else None)
        of_unit.write("answers", table.drop_columns(["unit"]), "" if unit == 2 else f"answers {unit}")
        tables.append(table)
    return tables


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_units_table_is_found_in_its_chunk(place, tmp_path):
    store = RunStore(str(tmp_path / "run") if place == "local" else f"memory://{tmp_path}")
    tables = write_units(store)
    assert compact_units(store, ["matches", "answers"], Chunk(0, 5)) == [
        "tables/matches/00000-00005.parquet",
        "tables/answers/00000-00005.parquet",
    ]
    assert find_chunks(store) == dict.fromkeys(range(6), Chunk(0, 5))
    groups = [
        pq.read_metadata(io.BytesIO(store.read_bytes(file))) for file in store.files("tables/matches") if "-" in file
    ]
    rows = [groups[0].row_group(i).num_rows for i in range(groups[0].num_row_groups)]
    assert rows == [1903, 3000, 200] and max(rows[0], rows[2]) <= GROUP_ROWS, "row groups have whole units"
    for unit, table in enumerate(tables):
        own, of_chunk = UnitTables(store, unit), ChunkTables(store, unit, chunk=Chunk(0, 5))
        for name in ("matches", "answers"):
            assert of_chunk.read(name).equals(own.read(name)) and len(of_chunk.read(name)) == len(table)
            assert [of_chunk.key(name), of_chunk.note(name)] == [own.key(name), own.note(name)]
        assert of_chunk.read("matches", ["list"]).column_names == ["list"]
        assert of_chunk.has_key("matches", f"key {unit}") and not of_chunk.has_key("matches", "another")


@pytest.mark.parametrize("number", [4, 17])
def test_a_table_that_is_adopted_from_a_chunk_is_the_units_own(number, tmp_path):
    """Byte for byte, under whichever number."""
    store, new = RunStore(str(tmp_path / "run")), RunStore(str(tmp_path / "new"))
    tables = write_units(store)
    compact_units(store, ["matches", "answers"], Chunk(0, 5))
    unit = UnitTables(new, number, ChunkTables(store, 4, chunk=Chunk(0, 5)))
    assert unit.is_done("matches", "key 4") and not unit.is_done("matches", "key 5")
    expected = UnitTables(RunStore(str(tmp_path / "expected")), number)
    renumbered = tables[4].set_column(0, "unit", pa.array([number] * len(tables[4]), pa.int32()))
    expected.write("matches", renumbered, "key 4", None)
    assert new.read_bytes(unit.file("matches")) == expected.store.read_bytes(expected.file("matches"))
    assert not unit.is_done("answers", "answers 4", adopt=False)
    assert unit.is_done("answers", "answers 4")


def test_a_damaged_chunk_has_no_table(tmp_path):
    store = RunStore(str(tmp_path / "run"))
    write_units(store)
    [file] = compact_units(store, ["matches"], Chunk(0, 5))
    of_chunk = ChunkTables(store, 2, chunk=Chunk(0, 5))
    assert of_chunk.has_key("matches", "key 2")
    Path(store.path(file)).write_bytes(store.read_bytes(file)[:-100])
    assert not of_chunk.has_key("matches", "key 2")
    store.write_parquet(file, pa.table({"unit": [1]}))  # says nothing of units
    assert not of_chunk.is_valid("matches")
    with pytest.raises(DamagedError, match="is damaged"):
        of_chunk.note("matches")


def test_a_chunk_without_a_row(tmp_path):
    """As of texts, where no row of its units is kept."""
    store = RunStore(str(tmp_path / "run"))
    for unit in range(3):
        UnitTables(store, unit).write("answers", pa.table({"text": pa.array([], pa.string())}), f"key {unit}")
    compact_units(store, ["answers"], Chunk(0, 2))
    of_chunk = ChunkTables(store, 1, chunk=Chunk(0, 2))
    assert of_chunk.has_key("answers", "key 1") and of_chunk.read("answers").schema.names == ["text"]
    assert len(of_chunk.read("answers")) == 0
