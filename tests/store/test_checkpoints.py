"""Checkpoints: finished steps are not repeated, and files that do not match their names are not used."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import RunError
from curate.store import checkpoints
from curate.store.checkpoints import Checkpoints
from curate.store.store import RunStore

ROWS, STEP = 20, 3
SCHEMA = pa.schema(
    [("n", pa.uint64()), ("words", pa.list_(pa.string())), ("image", pa.list_(pa.float16(), 2)), ("n", pa.bool_())]
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)


@pytest.fixture
def store(tmp_path):
    return RunStore(str(tmp_path))


class Work:
    """Work in steps that may be stopped; `begun` lists the row at which each attempt began."""

    def __init__(self, stop=ROWS):
        self.stop = stop
        self.begun = []

    def steps(self, first):
        self.begun.append(first)
        for start in range(first, ROWS, STEP):
            if start >= self.stop:
                raise KeyboardInterrupt
            yield rows(start, min(start + STEP, ROWS))


def rows(first, stop):
    numbers = np.arange(first, stop)
    words = pa.array([None if n % 4 == 0 else [f"word {n}"] for n in numbers], SCHEMA.field(1).type)
    flat = pa.array(np.repeat(numbers, 2).astype(np.float16))
    images = pa.FixedSizeListArray.from_arrays(flat, 2)
    return pa.table([pa.array(numbers, pa.uint64()), words, images, pa.array(numbers % 2 == 0)], schema=SCHEMA)


def of_unit(store, key="key"):
    return Checkpoints(store, "measured", 7, key)


def stop_at(store, stop):
    with pytest.raises(KeyboardInterrupt):
        of_unit(store).complete("part", SCHEMA, Work(stop).steps)


def test_what_is_in_place_is_not_made_again(store):
    for stop in (6, 7, 16):
        stop_at(store, stop)
    work, again = Work(), of_unit(store)
    found = again.complete("part", SCHEMA, work.steps)
    assert work.begun == [18] and found.equals(rows(0, ROWS).combine_chunks()) and found[1].num_chunks == 1
    assert again.complete("part", SCHEMA, Work(0).steps).equals(found)  # all of it is there
    again.delete()
    assert store.files() == []


@pytest.mark.parametrize(("key", "part"), [("other", "part"), ("key", "other")])
def test_what_something_else_determines_is_not_used(key, part, store):
    stop_at(store, 9)
    work = Work()
    of_unit(store, key).complete(part, SCHEMA, work.steps)
    assert work.begun == [0]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone", "renamed"])
def test_a_damaged_one_is_not_used(damage, store):
    """Later ones are not used either; a new one replaces it."""
    stop_at(store, 9)
    second = Path(store.path(store.files()[1]))
    data = second.read_bytes()
    assert "-000000003-" in second.name
    for place in range(0, len(data), 97) if damage == "flipped" else [0]:
        if damage == "gone":
            second.unlink()
        elif damage == "renamed":
            second.rename(second.with_name(second.name.replace("-000000003-", "-000000006-")))
        else:
            flipped = data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]
            second.write_bytes({"flipped": flipped, "cut": data[: len(data) // 2], "empty": b""}[damage])
        work = Work(3)
        with pytest.raises(KeyboardInterrupt):
            of_unit(store).complete("part", SCHEMA, work.steps)
        assert work.begun == [3]
    work = Work()
    assert of_unit(store).complete("part", SCHEMA, work.steps).equals(rows(0, ROWS).combine_chunks())
    assert work.begun == [3]
    assert of_unit(store).complete("part", SCHEMA, Work(0).steps).equals(rows(0, ROWS).combine_chunks())


def test_one_that_cannot_be_read_now_is_made_again(store, monkeypatch):
    stop_at(store, 9)
    monkeypatch.setattr(RunStore, "read_bytes", lambda *_: (_ for _ in ()).throw(TimeoutError("no answer")))
    work = Work()
    of_unit(store).complete("part", SCHEMA, work.steps)
    assert work.begun == [0]


def test_fast_work_leaves_none(store, monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL", 60.0)
    stop_at(store, 18)
    assert store.files() == []
    found = of_unit(store).complete("part", SCHEMA, lambda first: iter(()))
    assert found.schema == SCHEMA and len(found) == 0


def test_tables_that_are_complete_go_with_the_next_one(store, monkeypatch):
    """Together, many short parts lose no more than one interval."""
    clock = iter([0.0, *([30.0] * 7), 61.0, 61.0, *([70.0] * 20)])
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(checkpoints, "INTERVAL", 60.0)
    killed = of_unit(store)
    killed.complete("first", SCHEMA, Work().steps)
    assert store.files() == []
    with pytest.raises(KeyboardInterrupt):
        killed.complete("second", SCHEMA, Work(9).steps)
    monkeypatch.undo()
    work = Work(0)
    of_unit(store).complete("first", SCHEMA, work.steps)
    assert work.begun == [ROWS]
    with pytest.raises(KeyboardInterrupt):
        of_unit(store).complete("second", SCHEMA, work.steps)
    assert work.begun == [ROWS, 3]


def test_what_the_check_refuses_is_not_put_into_place(store):
    def check():
        raise RunError("the file changed")

    with pytest.raises(RunError, match="changed"):
        of_unit(store).complete("part", SCHEMA, Work().steps, check)
    assert store.files() == []


def test_a_full_disk_is_not_the_inputs_fault(store, monkeypatch):
    def fail(store, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunStore, "write_bytes", fail)
    with pytest.raises(RunError, match=r"parts/measured/00007/.*arrow: cannot be written: .*No space left"):
        of_unit(store).complete("part", SCHEMA, Work().steps)
