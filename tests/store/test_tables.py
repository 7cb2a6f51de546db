"""A unit's tables are adopted from an older run by their key, also under another number."""

import hashlib
import os
import uuid
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base import schema
from curate.store.store import RunStore
from curate.store.tables import UnitTables

KEY, NOTE = "key", {"rows": [3]}


def matches(unit):
    columns = [[unit] * 3, range(3), ["a", "b", None], [[1, 2], [], [0]]]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema.MATCHES, strict=True)], schema=schema.MATCHES)


def embeddings(unit):
    base = matches(unit).select(["unit", "row", "uid"])
    values = pa.array([[0.5, 0.25], [0, 1], [1, 0]], pa.list_(pa.float16(), 2))
    return base.append_column("image", values)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("make", [matches, embeddings])
def test_a_table_of_another_number_is_as_if_made_here(make, remote, tmp_path):
    old_url = f"memory://tables-{uuid.uuid4().hex}" if remote else str(tmp_path / "old")
    old = UnitTables(RunStore(old_url), 1)
    new = UnitTables(RunStore(str(tmp_path / "new")), 7, old)
    fresh = UnitTables(RunStore(str(tmp_path / "fresh")), 7)
    old.write("matches", make(1), KEY, NOTE)  # type: ignore[operator]
    fresh.write("matches", make(7), KEY, NOTE)  # type: ignore[operator]
    assert new.find("matches", KEY, by_footer=True) and not new.exists("matches")
    assert not new.is_done("matches", "another key") and not new.exists("matches")
    assert new.is_done("matches", KEY)
    files = [tables.store.read_bytes(tables.file("matches")) for tables in (new, fresh)]
    assert files[0] == files[1] and new.note("matches") == NOTE
    assert old.read("matches")["unit"].to_pylist() == [1] * 3


def test_a_table_of_the_same_number_or_without_one_is_linked(tmp_path):
    stores = [RunStore(str(tmp_path / name)) for name in ("old", "new")]
    for number, table in ((1, matches(1)), (2, matches(1).drop_columns(["unit"]))):
        old = UnitTables(stores[0], 1)
        new = UnitTables(stores[1], number, old)
        old.write("matches", table, KEY)
        assert new.is_done("matches", KEY)
        assert os.path.samefile(stores[0].path(old.file("matches")), stores[1].path(new.file("matches")))
        os.unlink(stores[0].path(old.file("matches")))


def test_a_damaged_table_is_not_adopted(tmp_path):
    old = UnitTables(RunStore(str(tmp_path / "old")), 1)
    new = UnitTables(RunStore(str(tmp_path / "new")), 2, old)
    old.write("matches", matches(1), KEY)
    path = Path(old.store.path(old.file("matches")))
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 255  # of a page: the footer is whole
    path.write_bytes(data)
    assert not new.is_done("matches", KEY) and not new.exists("matches")


@pytest.mark.parametrize("rows", [3, 63, 64, 5000])
def test_what_is_written_is_what_other_readers_read(rows, tmp_path):
    uids = [None, *(hashlib.md5(bytes([i % 256, i // 256])).hexdigest() for i in range(1, rows))]
    table = schema.SAMPLES.empty_table().to_pydict() | {"unit": [7] * rows, "row": [*range(rows)], "uid": uids}
    table |= {
        "words": [None if i % 5 else i for i in range(rows)],
        "characters": [2**31 - 1 if i % 2 else 0 for i in range(rows)],
    }
    samples = pa.table({name: values or pa.nulls(rows) for name, values in table.items()}).cast(schema.SAMPLES)
    tables = UnitTables(RunStore(str(tmp_path)), 7)
    tables.write("samples", samples, KEY)
    path = tables.store.path(tables.file("samples"))
    assert tables.read("samples") == pq.read_table(path).replace_schema_metadata(None) == samples
    read = duckdb.sql(f"SELECT * FROM '{path}'").to_arrow_table()
    assert read.cast(schema.SAMPLES) == samples
    if rows >= 64:  # 4 bits per digit, and consecutive integers take almost nothing
        sizes = {
            c["path_in_schema"]: c["total_compressed_size"]
            for c in pq.read_metadata(path).row_group(0).to_dict()["columns"]
        }
        assert sizes["uid"] < 17 * rows + 400 and sizes["row"] < 400
