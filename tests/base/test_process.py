"""What the threads of a process share."""

import pickle
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from curate.base.process import Backlog, Lazy, Recent, groups, in_threads, memory_limited


def test_lazy_loads_once() -> None:
    loads: list[int] = []
    lazy = Lazy(lambda: loads.append(1) or [len(loads)])
    assert not loads
    for _ in range(2):
        with lazy.use() as loaded:
            assert loaded == [1]


def test_lazy_is_used_by_one_thread_at_a_time() -> None:
    lazy = Lazy(list[str])

    def use(name: str) -> None:
        with lazy.use() as seen:
            seen.append(name)

    with lazy.use() as seen:
        other = threading.Thread(target=use, args=("other",))
        other.start()
        other.join(0.05)
        assert seen == []
    other.join()
    with lazy.use() as seen:
        assert seen == ["other"]


def test_lazy_loads_again_after_a_failure() -> None:
    attempts: list[str] = []

    def load() -> str:
        attempts.append("")
        if len(attempts) == 1:
            raise OSError("no network")
        return "model"

    lazy = Lazy(load)
    with pytest.raises(OSError, match="no network"), lazy.use():
        pass
    with lazy.use() as loaded:
        assert loaded == "model"


def test_lazy_on_several_devices() -> None:
    """A device gets it once those before are in use; then threads wait for the one that is free first."""
    loads: list[str] = []

    def load(device: str) -> str:
        loads.append(device)
        return device

    lazy = Lazy(load, lambda: ["a", "b"])
    for _ in range(3):
        with lazy.use() as used:
            assert used == "a" and loads == ["a"]
    with lazy.use() as one, ExitStack() as second:
        assert (one, second.enter_context(lazy.use())) == ("a", "b") and loads == ["a", "b"]
        third: list[str] = []

        def use() -> None:
            with lazy.use() as used:
                third.append(used)

        other = threading.Thread(target=use)
        other.start()
        other.join(0.05)
        assert third == []
        second.close()
        other.join()
        assert third == ["b"]
    assert loads == ["a", "b"]


def test_lazy_does_without_a_device_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def load(device: str) -> str:
        if device == "b":
            raise MemoryError("no room")
        return device

    lazy = Lazy(load, lambda: ["a", "b", "c"])
    with lazy.use() as one, lazy.use() as two:
        assert (one, two) == ("a", "c")
    assert "b is not used: no room" in caplog.text
    with pytest.raises(MemoryError), Lazy(load, lambda: ["b", "a"]).use():
        pass


def test_a_backlog_is_shared_and_nobody_waits_for_it() -> None:
    """Two loops in one thread: each goes on whatever the other holds, and in order."""
    taken: list[int] = []

    def items(first: int) -> Iterator[int]:
        for item in range(first, first + 100):
            taken.append(item)
            yield item

    backlog = Backlog(4)
    one = in_threads(abs, items(0), backlog)
    assert next(one) == 0
    assert taken == [0, 1, 2, 3, 4]  # four wait, or are the next
    assert list(in_threads(abs, items(100), backlog)) == list(range(100, 200))
    assert list(one) == list(range(1, 100))


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_a_loop_that_ends_early_gives_its_part_back(how: str) -> None:
    backlog = Backlog(4)
    for _ in range(5):
        loop = in_threads(lambda item: 1 // item, [1, 1, 0, 1, 1, 1, 1], backlog)
        assert next(loop) == 1
        if how == "closed":
            loop.close()
        else:
            with pytest.raises(ZeroDivisionError):
                list(loop)
    taken = iter(range(100))
    next(in_threads(abs, taken, backlog))
    assert next(taken) == 5


def test_recent_makes_a_thing_once_for_all_threads() -> None:
    made: list[int] = []
    recent: Recent[list[int]] = Recent(2)

    def make() -> list[int]:
        time.sleep(0.02)
        made.append(1)
        return made

    found = list(in_threads(lambda _: recent.get("a", make), range(8)))
    assert made == [1] and all(thing is made for thing in found)


def test_recent_keeps_what_was_used_last() -> None:
    made: list[str] = []
    recent: Recent[str] = Recent(2)
    for key in "abacab":
        assert recent.get(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b", "c", "b"]


def test_recent_makes_what_failed_again() -> None:
    recent: Recent[str] = Recent(2)
    for error in (OSError("no network"), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> str:
            raise error

        with pytest.raises(type(error)):
            recent.get("a", fail)
    assert recent.get("a", lambda: "made") == "made"


def test_recent_begins_empty_in_another_process() -> None:
    recent: Recent[str] = Recent(3)
    recent.get("a", lambda: "old")
    assert pickle.loads(pickle.dumps(recent)).get("a", lambda: "new") == "new"


def test_groups_end_by_size_or_by_number() -> None:
    assert list(groups([3, 3, 9, 1, 1, 1, 1], lambda size: size, 6, 3)) == [[3, 3], [9], [1, 1, 1], [1]]
    assert list(groups([], len, 1)) == []


def test_limits_of_memory_are_shared() -> None:
    """Of several at a time, the highest holds, in whatever order they end; then there is none, as before."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    low, high = memory_limited(1 << 30), memory_limited(1 << 40)
    low.__enter__()
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    with ThreadPoolExecutor(1) as other:
        other.submit(high.__enter__).result(300)  # no thread waits for another
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] > limit
        low.__exit__(None, None, None)
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] > 1 << 40
        other.submit(high.__exit__, None, None, None).result(300)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with memory_limited(1 << 26), pytest.raises(MemoryError):
        bytearray(1 << 28)
