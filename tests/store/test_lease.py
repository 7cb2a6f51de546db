"""Leases: one at a time, renewed by workers, and ended only if the holder is shown to be dead."""

import os
import subprocess
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

from curate.base.errors import RunError
from curate.store import lease as leases
from curate.store.lease import Holder, find_lease, read_leases, renew_lease, renewing
from curate.store.lock import check_unlocked, clear_tmp, find_holder, locked, remove_leftovers
from curate.store.store import RunStore
from tests.kit.waiting import wait_until


@pytest.fixture
def clock(monkeypatch):
    """The clock of leases, which a test sets."""
    clock = SimpleNamespace(now=1_000_000.0, monotonic=time.monotonic)
    clock.time = lambda: clock.now
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(leases, "_renewed", {})
    return clock


@pytest.fixture
def store():
    """A folder that is not on a disk."""
    folder = RunStore(f"memory://lease-{uuid.uuid4().hex}")
    yield folder
    folder.delete("")


def always(holder):
    return True


def test_a_second_one_learns_who_holds_it(store, clock):
    with locked(store, "forget") as hold:
        assert hold.lease and store.files("tmp") == ["tmp/lease/000001"]
        for attempt in (lambda: check_unlocked(store), lambda: locked(store, "run").__enter__()):
            with pytest.raises(RunError, match=rf"curate forget \(process {os.getpid()} on .*1970.*\) is running here"):
                attempt()
        clear_tmp(store)
        remove_leftovers(store)
        assert find_holder(store) == find_lease(store)
    assert store.files() == []
    check_unlocked(store)


def test_it_is_renewed_once_a_minute_by_all_who_work(store, clock):
    with locked(store, "run") as hold:
        begun = clock.now
        for seconds, renewed in ((59, 0), (60, 60), (90, 60), (989, 989)):
            clock.now = begun + seconds
            renew_lease(store, hold.lease)
            lease = find_lease(store)
            assert not lease.is_stale and lease.renewed - begun == renewed


def test_a_block_renews_it_and_stops_where_another_run_has_it(store, clock, monkeypatch):
    monkeypatch.setattr(leases, "BETWEEN", 0.01)

    def work():
        with renewing(store, hold.lease):
            pass

    with locked(store, "run") as hold:
        with renewing(store, hold.lease):
            clock.now += 100
            wait_until(lambda: (lease := find_lease(store)) is not None and lease.renewed >= clock.now)
        with locked(store, "forget", always) as other:
            assert list(read_leases(store)) == [2]
            with pytest.raises(RunError, match=r"curate forget .* has taken over this run; this command stops"):
                wait_until(work)
            renew_lease(store, other.lease)
        assert read_leases(store) == {}
        renew_lease(store, hold.lease)
        assert read_leases(store) == {}, "what was freed is not taken again"


def test_what_was_handed_over_waits_a_day_and_then_works(folder, clock):
    """This holds on a disk too, where the lock ends with the process."""
    with locked(folder, "run", outlasts=True) as hold:
        hold.record(engine="dataflow", handle={"job": "2026-01-02_03", "region": "r"})
        hold.is_handed_over = True
    clock.now += 86_000
    for command in ("run", "forget"):
        held = pytest.raises(RunError, match=r"curate run \(job 2026-01-02_03 on dataflow, since .*\) is running here")
        with held, locked(folder, command):
            pass
    holder = find_holder(folder)
    assert holder is not None and holder.is_waiting and not holder.is_stale and not holder.has_exited
    clock.now += 401
    stale = rf"was last active .* ago, so it probably no longer runs; `curate cancel {folder.url}` frees .*--take-over"
    with pytest.raises(RunError, match=stale):
        check_unlocked(folder)
    renew_lease(folder, hold.lease)
    holder = find_holder(folder)
    assert holder is not None and not holder.is_waiting and not holder.is_stale
    clock.now += 901
    with pytest.raises(RunError, match=stale), locked(folder, "run"):
        pass
    check_unlocked(folder, always)
    with locked(folder, "run", always) as later:
        assert [holder.id for holder in read_leases(folder).values()] == [later.lease]
    assert folder.files("tmp") == []


def test_a_published_run_needs_no_lease(folder):
    """Its job wrote `_SUCCESS` last; nobody was left to free it."""
    with locked(folder, "run", outlasts=True) as hold:
        hold.is_handed_over = True
    folder.write_bytes("_SUCCESS", b"")
    check_unlocked(folder)
    with locked(folder, "forget"):
        pass
    assert folder.files("tmp") == []


def test_a_process_that_left_its_lease(store):
    with locked(store, "run"):
        [holder] = read_leases(store).values()
        gone = holder.model_copy(update={"began": "1"})
        store.write_json("tmp/lease/000001", gone.model_dump())
        with pytest.raises(RunError, match=r"curate run .* has ended without freeing the folder; .*--take-over"):
            check_unlocked(store)
        store.write_json("tmp/lease/000001", gone.model_dump() | {"host": "other"})
        with pytest.raises(RunError, match=r"curate run .* on other.* is running here; .*\. If it no longer runs, .*"):
            check_unlocked(store)


def test_of_two_who_end_a_dead_lease_one_has_it(store, monkeypatch):
    """`slow` reads the dead lease 3. Then another command ends it, works, and ends; perhaps a third begins.

    `slow` goes on with what it has read: it is refused if the third works, and has the lease if nobody does.
    """
    dead = Holder.make("run").model_copy(update={"lasts": 0.0})
    read = leases.read_leases
    for begins_third in (True, False):
        store.write_json("tmp/lease/000003", dead.model_dump())
        third = ExitStack()

        def read_before_the_others(folder):
            found = read(folder)
            monkeypatch.setattr(leases, "read_leases", read)
            with locked(store, "report", always):
                pass
            if begins_third:  # noqa: B023
                third.enter_context(locked(store, "forget", always))  # noqa: B023
            return found

        monkeypatch.setattr(leases, "read_leases", read_before_the_others)
        if begins_third:
            with (
                third,
                pytest.raises(RunError, match=r"curate forget .* is running here"),
                locked(store, "run", always),
            ):
                pass
            store.delete("tmp")
        else:
            with locked(store, "run", always):
                assert len(read(store)) == 1


def test_a_process_is_known_by_its_beginning():
    holder = Holder.make("run")
    assert holder.is_here and not holder.has_exited
    assert holder.model_copy(update={"began": "1"}).has_exited
    assert not holder.model_copy(update={"began": "1", "is_detached": True}).has_exited
    assert not holder.model_copy(update={"began": "1", "host": "other"}).has_exited
    with subprocess.Popen(["sleep", "60"]) as child:
        began = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
        ended = holder.model_copy(update={"process": child.pid, "began": began})
        assert not ended.has_exited
        child.kill()
        wait_until(lambda: ended.has_exited)  # though nobody has waited for it yet
    assert ended.has_exited


def test_who_holds_it_says_more(folder):
    with locked(folder, "run") as hold:
        hold.record(log="run.log")
        holder = find_holder(folder)
        assert holder is not None and holder.log == "run.log" and str(holder).startswith("curate run (process ")
        hold.record(engine="spark", handle={"job": "1"}, page="http://page")
        assert find_holder(folder) == hold.holder or not folder.is_local
        assert str(find_holder(folder)).startswith("curate run (job 1 on spark, since ")
