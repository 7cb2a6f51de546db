"""What is known of hosts: how many connections each has, until when it wants to be left alone, and its robots.txt.

All is of one process: so many workers ask a host so many times as much.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from curate.base.errors import needing
from curate.pool.urls.download.faults import FetchFault

_RULES = 20_000_000  # characters of robots.txt that are remembered
_OVERHEAD = 300  # of each site
_DAY = 86_400.0
_AGENT = re.compile(r"\s*user[- ]?agent(?:\s*:|\s)([^#]*)(?:#.*)?", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z_-]*")  # a product token
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


class Hosts:
    """Shares hosts among threads: at most `per_host` connections to each at a time.

    A host that again and again does not answer, or answers that it is busy, is left alone for a while, and the same is then said
    of its URLs: thousands of them would else take hours.
    """

    def __init__(self, per_host: int) -> None:
        self._per_host = per_host
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
                _wait(host)
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
        """Note, in its slot, that a host did not answer, or is busy; it has the pause that it asks for, up to the longest one."""
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


def _wait(host: _Host) -> None:
    """Wait until a host may be asked. Raises FetchFault where it is left alone."""
    while True:
        now = time.monotonic()
        if host.fault and host.left_alone_until > now:
            raise host.fault.fresh()
        if host.pause_ends <= now:
            return
        time.sleep(min(host.pause_ends - now, 1.0))


@dataclass
class Robots:
    """The robots.txt of hosts (RFC 9309), each read once a day by the first thread that needs it."""

    agent: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _found: dict[str, tuple[float, Future[Any]]] = field(default_factory=dict)
    _characters: int = 0

    def check(self, site: str, url: str, read: Callable[[str], bytes]) -> float:
        """Raise FetchFault where the rules of a site (scheme, host and port) forbid a URL, or cannot be read.

        `read` fetches robots.txt: what it raises of status 4xx, but 429, means that all is allowed; any other fault is that of each URL.
        Returns the seconds in which another thread read it.
        """
        began = time.monotonic()
        rules, is_mine = self._rules(site, read)
        waited = 0.0 if is_mine else time.monotonic() - began
        if rules is not None and not rules.can_fetch(url, self.agent):
            raise FetchFault("robots", f"{site}/robots.txt")
        return waited

    def _rules(self, site: str, read: Callable[[str], bytes]) -> tuple[Any, bool]:
        now = time.monotonic()
        with self._lock:
            until, found = self._found.get(site, (0.0, None))
            is_mine = found is None or until < now
            if is_mine:
                found = Future()
                self._found[site] = now + _DAY, found
        assert found is not None
        if is_mine:
            try:
                rules, characters = self._parse(read, site)
                found.set_result(rules)
                with self._lock:
                    self._characters += characters
                    if self._characters > _RULES:
                        self._found, self._characters = {site: (now + _DAY, found)}, characters
            except BaseException as error:
                with self._lock:
                    self._found.pop(site, None)
                found.set_exception(error.fresh() if isinstance(error, FetchFault) else error)
        return found.result(), is_mine

    def _parse(self, read: Callable[[str], bytes], site: str) -> tuple[Any, int]:
        """Return the rules of a site, None where all is allowed, and what they are counted as."""
        with needing("robots: respect needs another package", "'.[img2dataset]' in a checkout of curate"):
            from protego import Protego
        try:
            text = _of_agent(read(f"{site}/robots.txt").decode("utf-8-sig", "replace"), self.agent)
            return Protego.parse(text), len(text) + _OVERHEAD
        except FetchFault as fault:
            if fault.reason.startswith("http_4") and fault.reason != "http_429":
                return None, _OVERHEAD
            detail = fault.detail if fault.reason == "refused_address" else f"while reading robots.txt: {fault.detail}"
            raise FetchFault(fault.reason, detail, fault.retry_after) from None


def _of_agent(text: str, agent: str) -> str:
    """Return a robots.txt in which agents are `*`, this one or `other`: Protego gives each that it finds all rules of its group.

    An agent is meant by its product token alone, whatever its case and what follows it, such as a version (RFC 9309, 2.2.1).
    """
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if found := _AGENT.fullmatch(line):
            name = found[1].strip()
            token = _TOKEN.match(name.lstrip("*"))
            is_mine = token is not None and token[0].lower() == agent
            lines[number] = f"User-agent: {'*' if name == '*' else agent if is_mine else 'other'}"
    return "\n".join(lines)
