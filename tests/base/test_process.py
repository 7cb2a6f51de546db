"""What the threads of a process share."""

import pickle
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from unittest.mock import Mock

import pytest

from curate.base.process import Backlog, Cache, ModelPool, groups, in_threads, memory_limited, process_cache
from tests.kit.waiting import wait_until


def test_a_pool_loads_once_and_again_after_a_failure():
    attempts = []

    def load(_):
        attempts.append("")
        if len(attempts) == 1:
            raise OSError("no network")
        return ["model"]

    pool = ModelPool(load)
    assert not attempts
    with pytest.raises(OSError, match="no network"), pool.use():
        pass
    for _ in range(2):
        with pool.use() as loaded:
            assert loaded == ["model"] and len(attempts) == 2


def test_pool_on_several_devices():
    """A device loads the model once those before are in use; then threads wait for the one that is free first."""
    loads, third, began = [], [], threading.Event()
    pool = ModelPool(lambda device: loads.append(device) or device, lambda: ["a", "b"])

    def use():
        began.set()
        with pool.use() as used:
            third.append(used)

    for _ in range(3):
        with pool.use() as used:
            assert used == "a" and loads == ["a"]
    with pool.use() as one, ExitStack() as second:
        assert (one, second.enter_context(pool.use())) == ("a", "b") and loads == ["a", "b"]
        other = threading.Thread(target=use)
        other.start()
        assert began.wait(60)
        other.join(0.05)
        assert third == [], "a device is used by one thread at a time"
        second.close()
        other.join()
        assert third == ["b"]
    assert loads == ["a", "b"]


def test_pool_does_without_a_device_that_fails(caplog):
    def load(device):
        if device == "b":
            raise MemoryError("no room")
        return device

    pool = ModelPool(load, lambda: ["a", "b", "c"])
    with pool.use() as one, pool.use() as two:
        assert (one, two) == ("a", "c")
    assert "curate does not use b: no room" in caplog.text
    with pytest.raises(MemoryError), ModelPool(load, lambda: ["b", "a"]).use():
        pass


def test_a_backlog_is_shared_and_nobody_waits_for_it():
    """Two loops in one thread: each goes on whatever the other holds, and in order."""
    taken = []

    def items(first):
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
def test_a_loop_that_ends_early_gives_its_part_back(how):
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


def test_cache_makes_a_thing_once_for_all_threads_and_two_things_at_the_same_time():
    made, cache, both = [], Cache(2), threading.Barrier(2)

    def make():
        time.sleep(0.02)
        made.append(1)
        return made

    def meet(key):
        both.wait(60)
        return key

    assert [*in_threads(lambda _: cache.get("a", make), range(8))] == [made] * 8 == [[1]] * 8
    assert list(in_threads(lambda key: cache.get(key, lambda: meet(key)), "bc", pool="unit")) == ["b", "c"]


def test_cache_keeps_what_was_used_last_and_drops_what_is_replaced():
    made, cache = [], Cache(2)
    for key in "abacab":
        assert cache.get(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b", "c", "b"]
    cache = Cache()
    for key in ("a 1", "b 1"):
        cache.get(key, lambda: "old")
    assert cache.get("a 2", lambda: "new", replaces="a ") == "new"
    assert [cache.get(key, lambda: "again") for key in ("a 1", "b 1", "a 2")] == ["again", "old", "new"]


def test_cache_makes_what_failed_again_and_begins_empty_in_another_process():
    cache = Cache(3)
    for error in (OSError("no network"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            cache.get("a", Mock(side_effect=error))
    assert cache.get("a", lambda: "made") == "made"
    assert pickle.loads(pickle.dumps(cache)).get("a", lambda: "new") == "new"


def test_a_maker_may_wait_for_a_thread_that_uses_the_cache():
    def outer():
        with ThreadPoolExecutor(1) as pool:
            return f"outer of {pool.submit(process_cache, 'test: inner', lambda: 'inner').result(60)}"

    assert process_cache("test: outer", outer) == "outer of inner"


def test_all_who_wait_for_a_maker_get_its_error():
    cache, begun, go_on = Cache(), threading.Event(), threading.Event()

    def fail():
        begun.set()
        go_on.wait(60)
        raise OSError("no network")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", fail)
        begun.wait(60)
        second = pool.submit(cache.get, "a", lambda: "made too early")
        wait_until(second.running)
        time.sleep(0.05)
        go_on.set()
        for waiting in (first, second):
            with pytest.raises(OSError, match="no network"):
                waiting.result(60)
    assert cache.get("a", lambda: "made") == "made"


def test_models_of_a_process_are_loaded_one_at_a_time():
    loading = []

    def load(device):
        loading.append(device)
        time.sleep(0.02)
        assert loading == [device]
        return loading.pop()

    def use(pool):
        with pool.use() as used:
            return used

    pools = [ModelPool(load, lambda device=device: [device]) for device in "abcd"]
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(use, pools)] == [*"abcd"]


def test_groups_end_by_size_or_by_number():
    assert list(groups([3, 3, 9, 1, 1, 1, 1], lambda size: size, 6, 3)) == [[3, 3], [9], [1, 1, 1], [1]]
    assert list(groups([], len, 1)) == []


def test_limits_of_memory_are_shared():
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
