"""State that a process keeps between runs: thread pools, and objects that threads share (models, engines, indexes)."""

import atexit
import logging
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, Literal, TypeVar

from curate.base.errors import RunError
from curate.base.meter import METER
from curate.base.wording import format_bytes, one_line

Value = TypeVar("Value")
Item = TypeVar("Item")
Result = TypeVar("Result")

# On Spark, a task has this many cores (spark.task.cpus): each task has a process, and each thread has a unit in memory.
CORES = int(os.environ.get("SPARK_TASK_CPUS") or os.cpu_count() or 1)

_lock = threading.Lock()
_loading = threading.RLock()
_DATA = resource.getrlimit(resource.RLIMIT_DATA)
_limits: list[int] = []  # active limits of memory


class Cache(Generic[Value]):
    """Values that threads share. The first thread that needs a key computes its value; other threads that need it wait.

    The cache keeps the `size` values that were used most recently. A pickled copy is empty.
    """

    def __init__(self, size: int = sys.maxsize) -> None:
        self._size, self._lock = size, threading.Lock()
        self._kept: dict[Hashable, Future[Value]] = {}  # in the order of use, the latest last

    def __reduce__(self) -> tuple[type["Cache[Value]"], tuple[int]]:
        return type(self), (self._size,)

    def get(self, key: Hashable, make: Callable[[], Value], replaces: str | None = None) -> Value:
        """Return the result of `make` for this key. Every waiting thread gets its exceptions, which are not cached.

        Before a new key is added, values whose keys begin with `replaces` are dropped.
        """
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is None and replaces is not None:
                for other in [other for other in self._kept if str(other).startswith(replaces)]:
                    del self._kept[other]
            future = self._kept[key] = kept or Future()
            while len(self._kept) > self._size:
                del self._kept[next(iter(self._kept))]
        if kept is None:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._kept.get(key) is future:
                        del self._kept[key]
                future.set_exception(error)
        return future.result()


_shared: Cache[Any] = Cache()


def process_cache(key: str, make: Callable[[], Value], replaces: str | None = None) -> Value:
    """Return the result of `make`. For each key, the first thread that needs it calls `make`; see `Cache.get`.

    A key must identify the content of the value, for example by a digest. A path does not identify it.
    """
    value: Value = _shared.get(key, make, replaces)
    return value


class ModelPool(Generic[Value]):
    """A model that is loaded when it is first used. On each device, one thread at a time uses it.

    When all devices that have it are busy, it is loaded on another one. A device where loading fails is not used.
    """

    def __init__(self, load: Callable[[str], Value], devices: Callable[[], Iterable[str]] = lambda: [""]) -> None:
        """`load` gets one of the devices that `devices` returns, which is called at the first use."""
        self._load, self._devices = load, devices
        self._free: SimpleQueue[tuple[str, Value]] = SimpleQueue()  # the least recently used one is first
        self._unloaded: deque[str] | None = None  # None before the first use
        self._is_loaded = False  # whether it is loaded on any device

    @contextmanager
    def use(self) -> Iterator[Value]:
        """Yield the loaded model as soon as a device is free.

        Raises errors of `load`, unless another device has the model.
        """
        (device, value), began = self._take(), time.monotonic()
        try:
            yield value
        finally:
            if device.startswith("cuda"):
                METER.count("gpu", time.monotonic() - began)
            self._free.put((device, value))

    def _take(self) -> tuple[str, Value]:
        while True:
            with suppress(Empty):
                return self._free.get(block=self._unloaded == deque())
            with _loading:  # libraries set dtypes and devices for the whole process, so load one model at a time
                if self._unloaded is None:
                    self._unloaded = deque(self._devices())
                if not self._unloaded or not self._free.empty():
                    continue
                device = self._unloaded[0]
                try:
                    value = self._load(device)
                except Exception as error:  # any kind of error, for example because other processes use the memory
                    if not self._is_loaded:
                        raise
                    logging.getLogger(__name__).warning("curate does not use %s: %s", device, one_line(error, 300))
                    self._unloaded.popleft()
                else:
                    self._is_loaded = True
                    return self._unloaded.popleft(), value


@contextmanager
def memory_limited(max_bytes: int) -> Iterator[None]:
    """Limit how many more bytes of data memory the process may allocate, in all threads. Other allocations fail.

    If several limits are active, in threads or nested, the highest one applies. If the system does not report its use
    of memory, like macOS, there is no limit.
    """
    if not (sizes := Path("/proc/self/statm")).exists():
        yield
        return
    used = int(sizes.read_text().split()[5]) * resource.getpagesize()
    with _lock:
        _limits.append(used + max_bytes)
        _set_limit()
    try:
        yield
    finally:
        with _lock:
            _limits.remove(used + max_bytes)
            _set_limit()


def free_memory() -> int:
    """Return the free memory in bytes of the machine, or of the control group that limits this process."""
    free = 1 << 40  # used if the system does not report it
    with suppress(OSError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    for group in _groups_of_memory():
        for maximum, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError):  # the text "max" means no limit
                free = min(free, int((group / maximum).read_text()) - int((group / used).read_text()))
    return max(free, 0)


def check_address_space(min_bytes: int, needing: str) -> None:
    """Raise RunError if a limit (`ulimit -v`, `prlimit --as`) gives this process less address space than needed."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < min_bytes:
        sizes = f"{format_bytes(min_bytes)} of address space, but the limit (ulimit -v) is {format_bytes(limit)}"
        raise RunError(f"{needing} needs {sizes}; raise the limit, or limit memory with a control group")


def _groups_of_memory() -> Iterator[Path]:
    """Yield the folders of the control groups that limit a process's memory. In a container, these are the roots."""
    roots = {"": Path("/sys/fs/cgroup"), "memory": Path("/sys/fs/cgroup/memory")}
    yield from roots.values()
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            for kind in {*kinds.split(",")} & {*roots}:
                yield roots[kind] / path.lstrip("/")


def _set_limit() -> None:
    """Set the highest active limit, but not more than the process's own limit."""
    soft, hardest = _DATA
    limit = min(soft, max(_limits, default=soft), key=lambda size: size % (1 << 64))  # -1 means infinite
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hardest))


def groups(
    items: Iterable[Item], size: Callable[[Item], int], limit: int, count: int = sys.maxsize
) -> Iterator[list[Item]]:
    """Yield lists of consecutive items.

    Each list's total `size` is at most `limit`, and it has at most so many items.
    """
    group: list[Item] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if total >= limit or len(group) >= count:
            yield group
            group, total = [], 0
    if group:
        yield group


@cache
def threads(name: Literal["core", "unit", "onnx"]) -> ThreadPoolExecutor:
    """Return the thread pool with this name, with one thread per core.

    "core" is for work that releases the GIL (Pillow, numba). "unit" is for units, which use "core" themselves. "onnx"
    is for sessions, because threads that decode images may wait until a model is loaded.
    """
    return ThreadPoolExecutor(CORES, thread_name_prefix=name)


class Backlog:
    """A limit on results that nobody has read yet. All loops over `in_threads` that use this object share it.

    Each loop gets an equal share of `size`, but at least one result, so that no loop waits for another. Two results per
    loop are allowed in addition.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._loops: dict[int, deque[Any]] = {}  # the unread results of each loop

    @contextmanager
    def in_loop(self) -> Iterator[deque[Any]]:
        """Yield a queue for the unread results of another loop."""
        waiting = deque[Any]()
        self._loops[id(waiting)] = waiting
        try:
            yield waiting
        finally:
            del self._loops[id(waiting)]

    def is_full(self, waiting: deque[Any]) -> bool:
        """Return whether a loop, whose queue is not empty, must read a result before it adds one."""
        lengths = list(map(len, list(self._loops.values())))
        return bool(waiting) and (len(waiting) >= self._size // len(lengths) or sum(lengths) >= self._size)


def in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    backlog: Backlog | None = None,
    pool: Literal["core", "unit"] = "core",
) -> Iterator[Result]:
    """Yield the function's result for each item, in order. The function must not use the same `threads`.

    The thread that consumes results submits items as threads become free, up to the limit of `backlog` plus one. The
    default limit is CORES.
    """
    return _in_order(threads(pool), function, items, backlog or Backlog(CORES))


_AHEAD = 16  # number of files that are read at the same time, because stores respond slowly


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the function's result for each item, in order, while separate threads compute the next ones."""
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="ahead") as pool:
        yield from _in_order(pool, function, items, Backlog(_AHEAD))


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], backlog: Backlog
) -> Iterator[Result]:
    with backlog.in_loop() as waiting:
        try:
            for item in items:
                while backlog.is_full(waiting):
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


_cleanups: list[Callable[[], object]] = []  # called from the last to the first


def at_interrupt(clean: Callable[[], object]) -> None:
    """Call `clean` if an interrupt ends the process. Such an end does not leave blocks in the usual way."""
    _cleanups.append(clean)


@cache
def process_folder() -> str:
    """Return a folder that is deleted at the end of this process."""
    block = temporary_folder()
    atexit.register(block.__exit__, None, None, None)
    return block.__enter__()


@contextmanager
def cleaned_up(clean: Callable[[], object]) -> Iterator[None]:
    """Call `clean` when the block ends, or if an interrupt ends the process inside the block."""
    at_interrupt(clean)
    try:
        yield
    finally:
        with suppress(ValueError):  # then an interrupt is about to call it
            _cleanups.remove(clean)
        clean()


@contextmanager
def stopped_if_interrupted(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` if an interrupt ends the block: it is raised there, or another thread ends the process.

    If another thread ends the process, the block's thread waits for that, because errors that `stop` causes do not
    matter.
    """
    at_interrupt(stop)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        stop()
        raise
    finally:
        if stop not in _cleanups:  # otherwise, an interrupt has removed it
            threading.Event().wait()
        _cleanups.remove(stop)


@contextmanager
def background_thread(work: Callable[[threading.Event], object], name: str) -> Iterator[None]:
    """Run `work` in a thread while the block runs. At the end of the block, set its event, and wait for the thread."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def temporary_folder(inside: str | None = None) -> Iterator[str]:
    """Yield a new temporary folder, which is removed like in `cleaned_up`."""
    folder = tempfile.mkdtemp(prefix="curate-", dir=inside)
    with cleaned_up(partial(shutil.rmtree, folder, ignore_errors=True)):
        yield folder


def clean_up() -> None:
    """Clean up for all active blocks, before the process ends inside them."""
    while _cleanups:
        with suppress(Exception):
            _cleanups.pop()()
