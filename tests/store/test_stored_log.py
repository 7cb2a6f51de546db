"""A log in a store takes few objects, however many lines it has."""

import os
import threading

import pytest

from curate.store import local
from curate.store.local import StoredLog
from curate.store.store import RunStore

LINES = [f"line {number} of a log, / and % in it" for number in range(200)]


def test_lines_come_from_few_objects(monkeypatch):
    monkeypatch.setattr(local, "_BETWEEN", 0.0)
    store = RunStore("memory://few")
    for line in LINES:
        store.log("tmp/steps", line)
    RunStore("memory://few").log("tmp/steps", "of another process")
    assert store.read_log("tmp/steps") != store.read_log("tmp/others") == []
    assert sorted(store.read_log("tmp/steps")) == sorted([*LINES, "of another process"])
    assert len(store.files("tmp/steps")) == 2
    monkeypatch.setattr(local, "_FULL", 100)
    for line in LINES:
        store.log("tmp/steps", line)
    assert 30 < len(store.files("tmp/steps")) < 80 and len(store.read_log("tmp/steps")) == 401


def test_no_object_is_written_twice_in_a_second(monkeypatch):
    monkeypatch.setattr(local, "_BETWEEN", 1000.0)
    written = []
    log = StoredLog()
    for line in LINES[:5]:
        log.add(line, lambda name, _: written.append(name))
    assert len(set(written)) == 5


def test_no_line_is_lost_between_threads(monkeypatch):
    monkeypatch.setattr(local, "_BETWEEN", 0.0)
    objects, log, all_at_once = dict[str, bytes](), StoredLog(), threading.Barrier(4)

    def put(name, data):
        all_at_once.wait()
        objects[name] = data

    threads = [
        threading.Thread(target=lambda some=LINES[n::4]: [log.add(line, put) for line in some]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line for data in objects.values() for line in data.decode().splitlines()) == sorted(LINES)
    assert len(objects) == 4


def test_what_was_not_put_comes_with_the_next_line(monkeypatch):
    monkeypatch.setattr(local, "_BETWEEN", 0.0)
    objects, log = dict[str, bytes](), StoredLog()

    def fail(name, data):
        raise OSError("the store is busy")

    with pytest.raises(OSError, match="busy"):
        log.add("one", fail)
    log.add("two", objects.__setitem__)
    assert [*objects.values()] == [b"one\ntwo\n"]


def test_a_process_that_is_forked_has_objects_of_its_own(monkeypatch):
    monkeypatch.setattr(local, "_BETWEEN", 0.0)
    objects, log = dict[str, bytes](), StoredLog()
    log.add("one", objects.__setitem__)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    log.add("two", objects.__setitem__)
    assert sorted(objects.values()) == [b"one\n", b"two\n"]
