"""Shares connection slots for hosts among all processes of a run, which may share nothing else but the run's folder.

Each host has a queue of processes, with one entry for each connection that they want. The first `per_host` entries have
a slot. One small file in the folder contains all queues; its name is a number. To change the queues, a process writes
the file with the next number. If another process has written that file first, the write fails, and the process starts
again.

Each process works in rounds: it enters the queues for its shard's hosts, leaves queues that it no longer needs, and
goes to the end of queues where others wait. Rounds get longer with more processes and slower stores. A process that
cannot write in time starts no more downloads, and the others take its slots `max_seconds` later. The clocks of the
processes need not agree.
"""

import logging
import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import orjson

from curate.base.errors import CurateError
from curate.base.wording import one_line
from curate.store.store import RunStore

LASTS = 30.0  # how long a process may continue after its last write, in seconds,
_ROUNDS = 6  # or this many rounds
_ROUND = 0.1  # the shortest round, in seconds
_TURN, _TURN_ROUNDS = 10.0, 20  # length of a turn if others wait, in seconds or rounds
_SPARE = 5.0  # tolerance for the end of a download, and for clocks, in seconds
_KEPT = 20.0  # a replaced file is deleted after this time, because a slower process could reuse its name

_log = logging.getLogger(__name__)


@dataclass
class _Host:
    changed: threading.Condition
    expected: int = 0  # URLs in shards that no thread has requested yet
    threads: int = 0  # threads that have a slot, or wait for one
    used: int = 0  # slots in use
    granted: int = 0  # slots that may be used
    due: int = 0  # slots to give back when their downloads end
    turn_ends: float = 0.0


class SharedHosts:
    """The connection slots of this process.

    Args:
        store: the run folder, with the queues in `folder`.
        per_host: the maximum number of connections to a host, over all processes.
        max_seconds: the maximum time of a connection.
        close: a function that closes idle connections to given hosts.
    """

    def __init__(
        self, store: RunStore, folder: str, per_host: int, max_seconds: float, close: Callable[[Collection[str]], None]
    ) -> None:
        self._store, self._folder, self._per_host = store, folder, per_host
        self._max_seconds, self._close = max_seconds, close
        self._me = secrets.randbits(48)
        self._lock, self._round = threading.Lock(), threading.Lock()
        self._hosts = defaultdict[str, _Host](lambda: _Host(threading.Condition(self._lock)))
        self._shards, self._goes_on = 0, False
        self._writes, self._valid_until = 0, 0.0
        self._seen: dict[str, tuple[list[float], float]] = {}  # last entry of each process, and since when it has it
        self._replaced: list[tuple[float, str]] = []  # replaced files, and when they were replaced
        self._read: tuple[str, bytes] = "", b"[{},{}]"  # name and content of the last file that was read
        self._took = 0.0  # seconds that the last round with a write took
        self._processes = 1  # number of processes in the queues at that time

    @contextmanager
    def expecting(self, names: Iterable[str]) -> Iterator[None]:
        """Enter the queues for the hosts of URLs during the block. Leave all queues after the last block.

        Raises OSError. The block may also send requests to other hosts, for example after redirects.
        """
        with self._lock:
            for name, count in Counter(names).items():
                self._hosts[name].expected += count
            self._shards += 1
            if not self._goes_on:
                self._goes_on = True
                threading.Thread(target=self._go_on, name="hosts", daemon=True).start()
        try:
            self._share()
            yield
        finally:
            with self._lock:
                self._shards -= 1
                is_last = not self._shards
                for host in self._hosts.values() if is_last else ():
                    host.expected = 0
            if is_last:
                self._try_to_share()

    @contextmanager
    def slot(self, name: str) -> Iterator[None]:
        with self._lock:
            host = self._hosts[name]
            host.expected, host.threads = max(0, host.expected - 1), host.threads + 1
            while host.used >= host.granted or time.monotonic() > self._valid_until:
                host.changed.wait(1.0)
            host.used += 1
        try:
            yield
        finally:
            with self._lock:
                host.used, host.threads = host.used - 1, host.threads - 1
                host.changed.notify()

    def _go_on(self) -> None:
        while True:
            time.sleep(self._pause)
            with self._lock:
                self._goes_on = self._shards > 0
                if not self._goes_on:
                    return
            if not self._try_to_share():
                time.sleep(_SPARE)

    def _try_to_share(self) -> bool:
        try:
            self._share()
            return True
        except (OSError, CurateError) as error:  # harmless: slots last longer than one round
            _log.warning("%s: cannot renew the slots for hosts: %s", self._store.url, one_line(error, 200))
            return False

    def _share(self) -> None:
        with self._round:
            while not self._try():
                time.sleep(random.uniform(0, _ROUND / 4))

    def _try(self) -> bool:
        """Do a round. Return False if another process has changed the queues in the meantime."""
        began, last = time.monotonic(), self._find_last()
        if last != self._read[0]:
            self._read = last, self._store.read_bytes(f"{self._folder}/{last}")
        processes, queues = orjson.loads(self._read[1])
        was_in = processes.pop(str(self._me), None) is not None
        dead = [process for process, written in processes.items() if not self._may_work(process, written, began)]
        for process in dead:
            del processes[process]
        if dead:
            surviving = {self._me, *map(int, processes)}
            queues = {name: [process for process in queue if process in surviving] for name, queue in queues.items()}
        with self._lock:
            changes, is_urgent = self._change(queues, began)
        changed = {name: queue for name, queue in (queues | changes).items() if queue}
        is_in = any(self._me in changed.get(name, ()) for name in self._hosts)
        lasts = max(LASTS, _ROUNDS * self._pause)
        if is_urgent or dead or was_in > is_in or (is_in and began > self._valid_until - 2 / 3 * lasts):
            self._close([name for name in changes if self._count(changes[name]) < self._count(queues.get(name, ()))])
            self._writes += 1
            processes |= {str(self._me): [self._writes, lasts]} if is_in else {}
            data, following = orjson.dumps([processes, changed]), f"{int(last or 0) + 1:09d}"
            if not self._store.write_bytes(f"{self._folder}/{following}", data, keep=lambda: True):
                return False
            took = time.monotonic() - began
            if took > _KEPT / 2 and self._find_last() != following:  # an earlier file may have had this name
                return False
            queues, self._read, self._valid_until = changed, (following, data), began + lasts
            self._took = took if not self._took else 0.8 * self._took + 0.2 * took
            self._processes = len(processes)
            self._delete_replaced(last, began + took)
        with self._lock:
            for name, host in self._hosts.items():
                granted = self._count(queues.get(name, ())) - host.due
                if granted > host.granted:
                    host.changed.notify_all()
                host.granted = granted
        return True

    def _find_last(self) -> str:
        self._store.fs.invalidate_cache(self._store.path(self._folder))
        return max(self._store.names(self._folder), default="")

    @property
    def _pause(self) -> float:
        return max(_ROUND, self._processes * self._took)

    def _may_work(self, process: str, written: list[float], now: float) -> bool:
        """Return whether a process may have connections: its entry has changed, or is recent."""
        before, since = self._seen.get(process, ([], now))
        self._seen[process] = written, now if written != before else since
        return now < self._seen[process][1] + written[1] + self._max_seconds + _SPARE

    def _change(self, queues: dict[str, list[int]], now: float) -> tuple[dict[str, list[int]], bool]:
        """Return the changed queues, and whether any process waits for this change.

        From now on, slots that this process gives up are not granted to its threads.
        """
        changes, is_urgent = {}, False
        for name, host in list(self._hosts.items()):
            queue = queues.get(name, [])
            slots, waiting = self._count(queue), sum(process != self._me for process in queue[self._per_host :])
            if waiting:  # leave queues that no thread has used yet, because others wait
                host.expected = 0
            wanted = min(self._per_host, max(host.expected, host.threads))
            kept = slots - min(slots, waiting) if now >= host.turn_ends else slots
            host.due = max(0, host.used - kept)
            if not slots or (kept < slots and not host.due):
                host.turn_ends = now + max(_TURN, _TURN_ROUNDS * self._pause)
            changed = change_queue(queue, self._me, self._per_host, max(wanted, host.used), max(kept, host.used))
            if changed != queue:
                changes[name] = changed
                is_urgent |= waiting > 0 or len(changed) > len(queue)
            host.granted = min(host.granted, self._count(changed) - host.due)
            if not wanted and not host.used and self._me not in queue:
                del self._hosts[name]
        return changes, is_urgent

    def _count(self, queue: Sequence[int]) -> int:
        return queue[: self._per_host].count(self._me)

    def _delete_replaced(self, last: str, now: float) -> None:
        self._replaced += [(now, f"{self._folder}/{last}")] if last else []
        old = [name for when, name in self._replaced if when < now - _KEPT]
        self._replaced = self._replaced[len(old) :]
        with suppress(FileNotFoundError):
            self._store.delete_files(old)


def change_queue(queue: Sequence[int], process: int, slots: int, wanted: int, kept: int) -> list[int]:
    """Return a queue with this number of entries for a process; the last ones are dropped.

    At most `kept` of them have slots. The others move to the end.
    """
    changed = list(queue)
    for _ in range(changed.count(process) - wanted):
        del changed[_last(changed, process)]
    for _ in range(changed.count(process)):  # one by one, because waiting entries may move up
        if changed[:slots].count(process) > kept:
            changed.append(changed.pop(_last(changed[:slots], process)))
    return changed + [process] * (wanted - changed.count(process))


def _last(queue: list[int], process: int) -> int:
    return len(queue) - 1 - queue[::-1].index(process)
