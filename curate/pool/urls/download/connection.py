"""Connections to strangers: to public addresses alone, and with an end, whatever the other side does.

Each address is checked in Python's own event `socket.connect`, which no library that runs in a guarded thread gets by; outside of
them nothing is changed. What servers leave open is used again.
"""

import http.client
import resource
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

from curate.base.wording import format_bytes
from curate.pool.urls.download.addresses import refusal
from curate.pool.urls.download.faults import FetchFault
from curate.pool.urls.download.names import look_up
from curate.pool.urls.download.policy import Network

_OTHER_FILES = 512  # that the process may have open besides connections in use
_BUFFER = 1 << 16  # bytes of an answer that are read at once
_KEPT, _KEPT_SECONDS = 256, 4.0  # connections, and how long one is: servers close them after 5 s, or later
_FRAMING = 2_000_000  # bytes that may come besides the body: answers before the answer, headers, trailers

_thread = threading.local()  # `networks` of a thread that is guarded


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


class Site(NamedTuple):
    """What connections are made to."""

    is_secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port, as the header `Host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Its root, without the last slash, and with the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"


class _Limited:
    """What a socket is that is read from no longer than its deadline, however slowly bytes come, and no further than `most` bytes."""

    deadline: Deadline | None = None
    most = 0
    has_ended = False

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        if self.deadline is None:
            return super().recv_into(*arguments, **options)  # type: ignore[misc,no-any-return]
        self.wait(self.deadline)
        count: int = super().recv_into(*arguments, **options)  # type: ignore[misc]
        self.has_ended |= not count
        self.most -= count
        if self.most < 0:
            raise FetchFault("too_large", f"more than {format_bytes(_FRAMING)} of headers and framing besides its body")
        return count

    def wait(self, deadline: Deadline) -> None:
        """Let the next call wait as long as a deadline lets it. Raises FetchFault where that is over."""
        seconds = deadline.left()
        if seconds != self.gettimeout():  # type: ignore[attr-defined]
            self.settimeout(seconds)  # type: ignore[attr-defined]

    def makefile(self, mode: str, *arguments: Any, **options: Any) -> Any:
        """Return it as a file, into which most answers fit as they come."""
        return super().makefile(mode, _BUFFER)  # type: ignore[misc]


class _Socket(_Limited, socket.socket):  # type: ignore[misc]
    pass


class _SecureSocket(_Limited, ssl.SSLSocket):  # type: ignore[misc]
    pass


@cache
def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = _SecureSocket
    return context


class Response(http.client.HTTPResponse):
    """An answer, whatever hints come before it (RFC 8297)."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)

    @property
    def leaves_open(self) -> bool:
        """Whether its connection can be asked again: it was read to its end, which it has said once where it is (RFC 9112, 6.3)."""
        headers = self.headers
        is_closing = self.will_close or any("close" in value.lower() for value in headers.get_all("Connection", []))
        ends = [*headers.get_all("Content-Length", []), *headers.get_all("Transfer-Encoding", [])]
        return not is_closing and len(ends) < 2 and (self.length == 0 or self.isclosed())


class Connection:
    """A connection to a site, which is asked for one thing at a time. Raises FetchFault, or OSError, where there is none."""

    def __init__(self, site: Site, deadline: Deadline) -> None:
        self.site = site
        self._socket = _connect(site, deadline)
        self.kept_since = 0.0

    def get(self, path: str, headers: str, deadline: Deadline) -> Response:
        """Ask for a path of printable ASCII; `headers` are lines. Where it has no answer, it is closed.

        Raises FetchFault, OSError, or what `http.client` raises of what is no HTTP.
        """
        lines = f"GET {path} HTTP/1.1\r\nHost: {self.site.authority}\r\n{headers}\r\n"
        response = Response(self._socket, method="GET")
        try:
            self._socket.wait(deadline)
            self._socket.deadline, self._socket.most = deadline, _FRAMING
            self._socket.sendall(lines.encode("ascii"))
            response.begin()
        except BaseException:
            response.close()
            self.close()
            raise
        return response

    def add(self, body: int) -> None:
        """Let so many bytes of the body not count for the limit of what comes besides, and as much as the sizes of chunks need."""
        self._socket.most += body + body // 8

    def is_quiet(self) -> bool:
        """Return whether it is open still, and nothing came that was not asked for."""
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    @property
    def has_ended(self) -> bool:
        """Whether the other side was seen to end it: headers that were read until then may lack some."""
        return bool(self._socket.has_ended)

    def close(self) -> None:
        """Close it, once its answer is closed."""
        self._socket.close()


def _connect(site: Site, deadline: Deadline) -> Any:
    """Return a socket, connected to the first of the site's addresses that answers. Raises FetchFault, or OSError."""
    error: Exception = FetchFault("dns", "no address")
    for family, address in look_up(site.host, site.port):
        sock = _Socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.left())
            sock.connect(address)
            return _context().wrap_socket(sock, server_hostname=site.host) if site.is_secure else sock
        except (FetchFault, OSError) as this:
            sock.close()
            error = this
            if isinstance(this, FetchFault | ssl.SSLError):
                break
    raise error


class KeptConnections:
    """Connections that servers leave open, for the next thing that is asked of a site: a new one costs more than what it is for.

    Where a host is given one, it is one of its own that is kept, or none of its own is left: so it has no more connections
    than are asked of it at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[Connection]] = {}  # by host, the one that was last given one last
        self._given_up: set[str] = set()  # hosts
        self._count, self._most = 0, min(_KEPT, _open_files() // 4)

    def take(self, site: Site) -> Connection | None:
        """Return a connection to a site that can be asked; None where there is none."""
        while True:
            with self._lock:
                kept = self._kept.get(site.host)
                if not kept:
                    return None
                found = kept.pop()
                self._count -= 1
                if not kept:
                    del self._kept[site.host]
            is_fresh = time.monotonic() - found.kept_since < _KEPT_SECONDS
            if is_fresh and found.site == site and found.is_quiet():
                return found
            found.close()

    def keep(self, connection: Connection) -> None:
        """Keep a connection that was asked, and answered."""
        connection.kept_since = time.monotonic()
        host = connection.site.host
        with self._lock:
            kept = self._kept.pop(host, [])
            self._kept[host] = [*kept, connection]  # the last host
            self._count += 1
            if host in self._given_up:
                self._drop(host)
            elif self._count > self._most:
                self._drop(next(iter(self._kept)))

    def give_up(self, host: str) -> None:
        """Keep none of a host's until `close`: one brought no answer, or not all of it, in time."""
        with self._lock:
            self._given_up.add(host)
            self._drop(host)

    def is_given_up(self, host: str) -> bool:
        """Return whether none of a host's are kept, which it is then to close."""
        return host in self._given_up

    def _drop(self, host: str) -> None:
        for connection in self._kept.pop(host, []):
            self._count -= 1
            connection.close()

    def close(self) -> None:
        """Close all that are kept."""
        with self._lock:
            for host in [*self._kept]:
                self._drop(host)
            self._given_up.clear()


@cache
def connections() -> threading.BoundedSemaphore:
    """Return what holds as many connections at a time as the process may have, besides those that are kept."""
    files = _open_files()
    return threading.BoundedSemaphore(files - min(_OTHER_FILES, files // 2))


@cache
def _open_files() -> int:
    """Return how many files the process may have open, which is given as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # of a limit that the system does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 1 << 16 if soft == resource.RLIM_INFINITY else soft
