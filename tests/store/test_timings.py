"""Records of the time that steps take."""

from contextlib import suppress

import pytest

from curate.store import local
from curate.store.facts import StepFacts
from curate.store.store import RunStore
from curate.store.timings import Sent, log_sent, read_records, sum_sent, sum_timings, time_step, write_records
from tests.kit.commands import run_command, write_pool

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_notes_are_summed(protocol, tmp_path):
    folder = RunStore(f"{protocol}{tmp_path}/run")
    assert sum_timings(read_records(folder)) == []
    for step, name, rows in (("emit", "00000", 5), ("measure", "00000", 7), ("measure", "00001", 8)):
        with time_step(folder, step, name) as timer:
            timer.rows = rows
    with time_step(folder, "caption", "00000"):
        pass
    with time_step(folder, "match", "00000") as timer:
        timer.idle = True
    with pytest.raises(ValueError), time_step(folder, "decide", "00000"):
        raise ValueError
    found = sum_timings(read_records(folder))
    expected = [("measure", 2, 15), ("caption", 1, None), ("emit", 1, 5)]
    assert [(one.step, one.units, one.rows) for one in found] == expected


@pytest.mark.parametrize("protocol", ["", "memory://"])
def test_what_was_sent_is_summed(protocol, tmp_path):
    folder = RunStore(f"{protocol}{tmp_path}/run")
    assert sum_sent(read_records(folder)) == {}
    log_sent(folder, "rewrite", "a-b", Sent(3, 1.5, 30, 9))
    log_sent(folder, "rewrite.own", "c", Sent(1, 0.25, 0, 0))
    log_sent(folder, "rewrite", "a-b", Sent(2, 0.5, 20, 1))
    records = read_records(folder)
    assert sum_sent(records) == {("rewrite", "a-b"): Sent(5, 2.0, 50, 10), ("rewrite.own", "c"): Sent(1, 0.25)}
    assert sum_timings(records) == []


def test_a_run_tells_its_own_work(tmp_path):
    """All commands of a run count: the first one fails once everything is decided."""
    write_pool(tmp_path)

    def run(name, *more, status=0):
        words = ("run", str(tmp_path / "tars.yaml"), "--out", str(tmp_path / name), *more)
        assert run_command(*words).status == status
        return not status and RunStore(str(tmp_path / name)).read_json("run.json")["steps"]

    run("one", "--set", "max_failed=0.01", status=1)
    one = run("one", "--set", "max_failed=0.2")
    two = run("two", "--reuse", str(tmp_path / "one"), "--set", "balance.t=3")
    assert [step["step"] for step in one] == ["measure", "match", "rules", "decide", "emit"]
    assert [step["step"] for step in two] == ["rules", "decide", "emit"]
    assert {step["rows"] for step in one[:4]} == {60} and one[0]["seconds"] > 0
    assert not (tmp_path / "one/tmp").exists()


def test_of_a_retry_the_longest_counts_and_a_damaged_record_is_left_out(tmp_path):
    folder = RunStore(str(tmp_path))
    for record in ("00000.1500.9", "00000.2500.9", "00001.500.1", "!2.3"):
        folder.log("tmp/steps", f"measure.{record}")
    for record in ("\0\0rules.1.5.3", "rules", ""):
        folder.log("tmp/steps", record)
    assert sum_timings(read_records(folder)) == [StepFacts(step="measure", units=2, rows=10, seconds=3.0)]


@pytest.mark.parametrize(("protocol", "method"), [("", "log"), ("memory://", "_put_log")])
def test_what_was_not_written_is_written_once_later(protocol, method, tmp_path, monkeypatch):
    """A busy store loses and doubles no record, even if its log's object is full."""
    monkeypatch.setattr(local, "_FULL", 10)
    folder = RunStore(protocol + str(tmp_path / "busy"))
    write, failures = getattr(RunStore, method), [OSError("the store is busy")]

    def busy(store, *words):
        if failures:
            raise failures.pop()
        write(store, *words)

    monkeypatch.setattr(RunStore, method, busy)
    for kind in ("a", "b"):
        with suppress(OSError):
            log_sent(folder, kind, "engine", Sent(1, 2.0, 3, 4))
    with suppress(OSError):
        write_records()
    assert not failures
    assert sum_sent(read_records(folder)) == dict.fromkeys([("a", "engine"), ("b", "engine")], Sent(1, 2.0, 3, 4))
