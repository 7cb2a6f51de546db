"""What this process knows of hosts: how many connections each has, and until when it wants to be left alone."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from curate.download.fetch_fault import FetchFault

_FAILURES = 12  # one after the other, after which a host is left alone
_LEFT_ALONE = 60.0  # seconds
_OF_HOSTS = ("timeout", "http_429", "http_503")  # what counts as such
_HOSTS = 10_000  # that are remembered


@dataclass
class _Host:
    slots: threading.Semaphore
    users: int = 0
    pause_ends: float = 0.0
    failures: int = 0  # since it last answered
    fault: FetchFault | None = None
    left_alone_until: float = 0.0

    def pause(self) -> float:
        """Return for how many seconds it wants a pause. Raises FetchFault where it is left alone."""
        now = time.monotonic()
        if self.fault and self.left_alone_until > now:
            raise self.fault.fresh()
        return self.pause_ends - now


class Hosts:
    """Shares hosts among threads: at most `per_host` connections to each at a time.

    `shared` gives a slot of a host, of those that all processes share; by default this one is alone.

    A host that again and again does not answer, or answers that it is busy, is left alone for a while, in which all its
    URLs have that fault: thousands of them would else take hours.
    """

    def __init__(
        self, per_host: int, shared: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext()
    ) -> None:
        self._per_host, self._shared = per_host, shared
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    @contextmanager
    def slot(self, name: str) -> Iterator[None]:
        """Wait for a connection to a host, and for the end of its pause. Raises FetchFault where it is left alone."""
        with self._lock:
            host = self._hosts.get(name)
            if host is None:
                if len(self._hosts) >= _HOSTS:
                    self._forget()
                host = self._hosts[name] = _Host(threading.Semaphore(self._per_host))
            host.users += 1
        try:
            with host.slots:
                host.pause()  # before a slot is waited for
                with self._shared(name):
                    while (pause := host.pause()) > 0:
                        time.sleep(min(pause, 1.0))
                    yield
        finally:
            with self._lock:
                host.users -= 1

    def _forget(self) -> None:
        """Forget hosts that nobody asks; those that are to be left alone last."""
        now = time.monotonic()
        asked = {name: host for name, host in self._hosts.items() if host.users}
        alone = {name: host for name, host in self._hosts.items() if max(host.pause_ends, host.left_alone_until) > now}
        self._hosts = asked | alone if len(alone) < _HOSTS // 2 else asked

    def failed(self, name: str, fault: FetchFault, max_pause: float) -> None:
        """Note, in its slot, that a host did not answer, or is busy; it has the pause that it asks for, limited."""
        host, now = self._hosts[name], time.monotonic()
        with self._lock:
            if fault.retry_after is not None:
                host.pause_ends = max(host.pause_ends, now + min(fault.retry_after, max_pause))
            if fault.reason in _OF_HOSTS:
                host.failures += 1
                host.fault = fault.fresh()
                if host.failures >= _FAILURES:
                    host.left_alone_until = now + _LEFT_ALONE

    def answered(self, name: str) -> None:
        """Note, in its slot, that a host answered."""
        host = self._hosts[name]
        host.failures, host.fault = 0, None
