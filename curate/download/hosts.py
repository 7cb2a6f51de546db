"""What is known of hosts: how many connections each has, until when it wants to be left alone, and its robots.txt.

All is of one process: so many workers ask a host so many times as much.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from curate.download.faults import FetchFault
from curate.errors import needing

_RULES = 50_000  # robots.txt that are remembered
_DAY = 86_400.0


@dataclass
class _Host:
    slots: threading.Semaphore
    users: int = 0
    pause_ends: float = 0.0


class Hosts:
    """Shares hosts among threads: at most `per_host` connections to each at a time."""

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    @contextmanager
    def slot(self, name: str) -> Iterator[None]:
        """Wait for a connection to a host, and for the end of its pause."""
        with self._lock:
            host = self._hosts.setdefault(name, _Host(threading.Semaphore(self._per_host)))
            host.users += 1
        try:
            with host.slots:
                while (left := host.pause_ends - time.monotonic()) > 0:
                    time.sleep(left)
                yield
        finally:
            with self._lock:
                host.users -= 1
                if not host.users and host.pause_ends <= time.monotonic():
                    self._hosts.pop(name, None)

    def pause(self, name: str, seconds: float) -> None:
        """Leave a host alone for so long."""
        with self._lock:
            host = self._hosts.setdefault(name, _Host(threading.Semaphore(self._per_host)))
            host.pause_ends = max(host.pause_ends, time.monotonic() + seconds)


@dataclass
class Robots:
    """The robots.txt of hosts (RFC 9309), each read once a day by the first thread that needs it."""

    agent: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _found: dict[str, tuple[float, Future[Any]]] = field(default_factory=dict)

    def check(self, site: str, url: str, read: Callable[[str], bytes]) -> None:
        """Raise FetchFault where the rules of a site (scheme, host and port) forbid a URL, or cannot be read.

        `read` fetches robots.txt: what it raises of status 4xx means that all is allowed; any other fault is that of each URL.
        """
        rules = self._rules(site, read)
        if rules is not None and not rules.can_fetch(url, self.agent):
            raise FetchFault("robots", f"{site}/robots.txt")

    def _rules(self, site: str, read: Callable[[str], bytes]) -> Any:
        now = time.monotonic()
        with self._lock:
            until, found = self._found.get(site, (0.0, None))
            is_mine = found is None or until < now
            if is_mine:
                if len(self._found) >= _RULES:
                    self._found.clear()
                found = Future()
                self._found[site] = now + _DAY, found
        assert found is not None
        if is_mine:
            try:
                found.set_result(_parse(read, site))
            except BaseException as error:
                with self._lock:
                    self._found.pop(site, None)
                found.set_exception(error)
        return found.result()


def _parse(read: Callable[[str], bytes], site: str) -> Any:
    with needing("robots: respect needs a further package", "'curate[img2dataset]'"):
        from protego import Protego
    try:
        return Protego.parse(read(f"{site}/robots.txt").decode(errors="replace"))
    except FetchFault as fault:
        if fault.reason.startswith("http_4") and fault.reason != "http_429":
            return None
        raise
