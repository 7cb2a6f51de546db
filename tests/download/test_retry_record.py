"""The record of retried rows: its file, its key, and its rounds."""

import pyarrow as pa

from curate.base import schema
from curate.download.retry_record import Retries
from curate.store.layout import RETRIES_FILE
from curate.store.store import RunStore


def rows(*numbers, list_="a", source="web"):
    """Rows of one list to retry."""
    table = {"source": source, "list": list_, "row": numbers, "key": [f"key {row}" for row in numbers]}
    columns = {name: [value] * len(numbers) if isinstance(value, str) else value for name, value in table.items()}
    columns["attempts"] = [1] * len(numbers)
    return pa.table(columns, schema=pa.schema([schema.RETRIES.field(name) for name in columns]))


def test_the_file_of_a_record(tmp_path, caplog):
    """It is read as it was written; an empty record deletes it; curate ignores a damaged one, with a warning."""
    store, written = RunStore(str(tmp_path)), Retries().with_round(rows(3, 1)).with_round(rows(1, list_="b"))
    written.write(store)
    assert Retries.read(store).table.equals(written.table)
    assert (written.rounds, len(written)) == (2, 3) and written.table["row"].to_pylist() == [1, 3, 1]
    store.write_bytes(RETRIES_FILE, b"damaged")
    assert len(Retries.read(store)) == 0 and RETRIES_FILE in caplog.text
    Retries().write(store)
    assert not store.exists(RETRIES_FILE) and len(Retries.read(store)) == 0


def test_the_key_depends_on_the_rows_alone():
    one = Retries().with_round(rows(1, 2))
    assert Retries().key == "" and one.key == Retries().with_round(rows(2, 1)).key
    assert len({one.key, Retries().with_round(rows(1)).key, Retries().with_round(rows(1)).with_round(rows(2)).key}) == 3


def test_rows_are_grouped_by_list():
    record = Retries().with_round(rows(5, 4, list_="b")).with_round(rows(0, list_="a")).with_round(rows(4, list_="b"))
    lists = {
        key: [(row["round"], row["row"]) for row in table.to_pylist()] for key, table in record.by_list("web").items()
    }
    assert lists == {"a": [(2, 0)], "b": [(1, 4), (1, 5), (3, 4)]} and record.by_list("other") == {}
