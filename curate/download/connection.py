"""Connections to strangers: to public addresses alone, and with an end, whatever the other side does.

The addresses of a name are looked up once in five minutes. Each is checked in Python's own event `socket.connect`, which no
library that runs in a guarded thread gets by; outside of them nothing is changed.
"""

import http.client
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple, cast

from curate.download.addresses import refusal
from curate.download.faults import FetchFault
from curate.download.policy import Network
from curate.wording import format_bytes

_FOUND_SECONDS, _MISSING_SECONDS = 300.0, 60.0
_AGAIN_SECONDS = 0.5  # that a failure which may pass is remembered, twice as long each time
_OTHER_FILES = 512  # that the process may have open besides connections
_NAMES = 100_000  # that are remembered
_FRAMING = 2_000_000  # bytes that may come besides the body: answers before the answer, headers, trailers

_thread = threading.local()  # `networks` of a thread that is guarded


class _Found(NamedTuple):
    """What looking up a name gave, families and addresses or what is wrong, for how long it is remembered, and until when."""

    addresses: list[tuple[int, Any]] | str
    seconds: float
    until: float


_names: dict[tuple[str, int], _Found] = {}


@contextmanager
def guarded(networks: Sequence[Network]) -> Iterator[None]:
    """Refuse connections of this thread to addresses that are neither public nor in one of the networks. Raises FetchFault there."""
    before = getattr(_thread, "networks", None)
    guard_thread(networks)
    try:
        yield
    finally:
        if before is None:
            del _thread.networks
        else:
            _thread.networks = before  # of a thread that is guarded until it ends


def guard_thread(networks: Sequence[Network]) -> None:
    """Do what `guarded` does until the thread ends."""
    _install()
    _thread.networks = tuple(networks)


@cache
def _install() -> None:
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto") and hasattr(_thread, "networks"):
        _, address = arguments
        host = address[0] if isinstance(address, tuple) else address
        if kind := refusal(str(host), _thread.networks):
            raise FetchFault("refused_address", f"{host} is {kind}")


class Deadline:
    """When a download must be over, and how long each step of it may take (seconds)."""

    def __init__(self, step: float, whole: float) -> None:
        self._step, self._end = step, time.monotonic() + whole

    def extend(self, seconds: float) -> None:
        """Leave out what was no part of the download: a wait for others."""
        self._end += seconds

    def left(self) -> float:
        """Return the seconds that the next step has. Raises FetchFault where there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchFault("timeout", "it took more than max_seconds")
        return min(self._step, left)


class _Limited:
    """What a socket is that is read from no longer than its deadline, however slowly bytes come, and no further than `most` bytes."""

    deadline: Deadline | None = None
    most = 0

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        if self.deadline is None:
            return super().recv_into(*arguments, **options)  # type: ignore[misc,no-any-return]
        self.settimeout(self.deadline.left())  # type: ignore[attr-defined]
        count: int = super().recv_into(*arguments, **options)  # type: ignore[misc]
        self.most -= count
        if self.most < 0:
            raise FetchFault("too_large", f"more than {format_bytes(_FRAMING)} besides its body")
        return count


class _Socket(_Limited, socket.socket):
    pass


class _SecureSocket(_Limited, ssl.SSLSocket):
    pass


@cache
def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _SecureSocket
    return context


class _Response(http.client.HTTPResponse):
    """An answer, whatever hints come before it (RFC 8297)."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class Connection(http.client.HTTPConnection):
    """A connection to a host, for one request."""

    response_class = _Response
    _limited: _Limited

    def __init__(self, host: str, port: int, is_secure: bool, deadline: Deadline) -> None:
        super().__init__(host, port)
        self._is_secure, self._deadline = is_secure, deadline

    def connect(self) -> None:
        """Connect to the first of the host's addresses that answers. Raises FetchFault, or OSError."""
        error: Exception = FetchFault("dns", "no address")
        for family, address in _look_up(self.host, self.port):
            sock = _Socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(self._deadline.left())
                sock.connect(address)
                self.sock = self._limited = self._secure(sock) if self._is_secure else sock
                self._limited.deadline, self._limited.most = self._deadline, _FRAMING
                return
            except (FetchFault, OSError) as this:
                sock.close()
                error = this
                if isinstance(this, FetchFault | ssl.SSLError):
                    break
        raise error

    def add(self, body: int) -> None:
        """Let so many bytes of the body not count for the limit of what comes besides, and as much as the sizes of chunks need."""
        self._limited.most += body + body // 8

    def _secure(self, sock: socket.socket) -> _SecureSocket:
        return cast(_SecureSocket, _context().wrap_socket(sock, server_hostname=self.host))


def _look_up(host: str, port: int) -> list[tuple[int, Any]]:
    """Return families and addresses of a host. Raises FetchFault."""
    found, now = _names.get((host, port)), time.monotonic()
    if found is None or found.until < now:
        before = found.seconds if found and isinstance(found.addresses, str) else 0.0
        addresses, seconds = _resolve(host, port, before)
        found = _Found(addresses, seconds, time.monotonic() + seconds)
        if len(_names) >= _NAMES:
            _names.clear()
        _names[host, port] = found
    if isinstance(found.addresses, str):
        raise FetchFault("dns", f"{host}: {found.addresses}")
    return found.addresses


def _resolve(host: str, port: int, before: float) -> tuple[list[tuple[int, Any]] | str, float]:
    """Ask for a host's addresses. Return them, or what is wrong, and for how many seconds that holds.

    `before`: for how long the last failure held. A name that there is not is not asked for again in a minute; what may pass is
    asked for after a pause, which is longer each time.
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(info[0], info[4]) for info in infos], _FOUND_SECONDS
    except socket.gaierror as error:
        may_pass = error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM)
        seconds = min(max(_AGAIN_SECONDS, 2 * before), _MISSING_SECONDS) if may_pass else _MISSING_SECONDS
        return error.strerror or str(error), seconds
    except (OSError, UnicodeError) as error:
        return str(error), _MISSING_SECONDS


@cache
def connections() -> threading.BoundedSemaphore:
    """Return what holds as many connections at a time as the process may have, which is given as many open files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # of a limit that the system does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    soft = 1 << 16 if soft == resource.RLIM_INFINITY else soft
    return threading.BoundedSemaphore(soft - min(_OTHER_FILES, soft // 2))
