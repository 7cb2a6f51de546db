"""Sends one GET at a time, only to public addresses, and always with a deadline.

`HttpTransport` uses Python's http.client, which accepts what real servers send, as img2dataset does. urllib3 would
rewrite the escapes in a path, and httpcore would reject headers that img2dataset accepts.
"""

import http.client
import resource
import select
import socket
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from functools import cache
from typing import Any, NamedTuple

from curate.base.wording import format_bytes
from curate.download.addresses import Network, look_up, refusal
from curate.download.fetch_error import FetchError

_OTHER_FILES = 512  # files that the process may open in addition to connections in use
_CHUNK = 1 << 16  # bytes per read
_KEPT, _KEPT_SECONDS = 256, 4.0  # idle connections, and seconds to keep them: servers close them after 5 s or later
_FRAMING = 2_000_000  # limit in bytes for everything except the body: interim responses, headers, trailers
_OF_CONNECTIONS = (400, 408)  # statuses that an idle connection, or an earlier request on it, may have caused


class Deadline:
    """When a download must end, and how many seconds each step may take."""

    def __init__(self, step: float, whole: float) -> None:
        self._step, self._whole, self._end = step, whole, time.monotonic() + whole

    def anew(self) -> "Deadline":
        """Return a deadline that has the same limits and begins now."""
        return Deadline(self._step, self._whole)

    def extend(self, seconds: float) -> None:
        """Add the time for which the download waited for others."""
        self._end += seconds

    def remaining(self) -> float:
        """Return the seconds for the next step. Raises FetchError if no time is left."""
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise FetchError("timeout", "it took more than max_seconds")
        return min(self._step, remaining)


class Site(NamedTuple):
    """A site to connect to."""

    is_secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """Host and port, as in the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the root, with the port but without the last slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    """A server's response."""

    status: int
    reason: str  # from the status line
    headers: Message  # as received: each byte is one character
    length: int | None  # number of bytes in the body, if the headers state it
    body: Iterator[bytes]  # the body in chunks, as received


class HttpTransport:
    """HTTP/1.1 for many threads, to addresses that are public or in `networks`. Each request has `headers`.

    Connections that servers leave open are kept for the next request to the site, because a new connection costs more
    than the request. A thread that requests a host uses one of its idle connections, or closes it, on any port. So a
    host never has more connections than requests.
    """

    def __init__(self, networks: Sequence[Network], headers: Mapping[str, str]) -> None:
        self._networks, self._headers = tuple(networks), headers
        self._lock = threading.Lock()
        self._kept: list[_Connection] = []  # the most recent is last
        self._given_up: set[str] = set()  # hosts that did not answer in full, in time
        self._max_kept = min(_KEPT, _open_files() // 4)

    @contextmanager
    def get(self, site: Site, path: str, deadline: Deadline) -> Iterator[Answer]:
        """Request a path and query (printable ASCII) from a site. Raises FetchError, also while the body is read."""
        with ExitStack() as closing:
            try:
                with _as_fetch_errors():
                    connection, response = self._ask(site, path, deadline)
                    closing.callback(connection.close)
                    with response:
                        body = _read(connection, response)
                        yield Answer(response.status, response.reason, response.headers, response.length, body)
                        is_left_open = _leaves_open(connection, response)
                    if is_left_open and self._keep(connection):
                        closing.pop_all()
            except FetchError as error:
                if error.reason == "timeout":  # perhaps a body that ends only when the connection closes
                    self._given_up.add(site.host)
                    self.leave({site.host})
                raise

    def leave(self, hosts: Collection[str]) -> None:
        """Close the idle connections to these hosts."""
        with self._lock:
            for connection in [kept for kept in self._kept if kept.site.host in hosts]:
                self._kept.remove(connection)
                connection.close()

    def close(self) -> None:
        """Close all idle connections. New ones are opened when they are needed."""
        self.leave([kept.site.host for kept in list(self._kept)])
        self._given_up.clear()

    def _ask(self, site: Site, path: str, deadline: Deadline) -> "tuple[_Connection, http.client.HTTPResponse]":
        """Return a response and its connection. If an idle connection fails, retry on a new one (RFC 9112, 9.3.1)."""
        headers = {"Host": site.authority, **self._headers}
        if site.host in self._given_up:
            headers["Connection"] = "close"
        if kept := self._take(site):
            try:
                response = kept.ask(path, headers, deadline)
                if not kept.wire.has_ended and response.status not in _OF_CONNECTIONS:
                    return kept, response
                response.close()
                kept.close()
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, TimeoutError):
                    raise
        connection = _Connection(site, self._networks)
        return connection, connection.ask(path, headers, deadline)

    def _take(self, site: Site) -> "_Connection | None":
        """Return a usable idle connection to the site. Close the host's other idle connections."""
        while True:
            with self._lock:
                of_host = [kept for kept in self._kept if kept.site.host == site.host]
                if not of_host:
                    return None
                self._kept.remove(of_host[-1])
            if of_host[-1].is_fit(site):
                return of_host[-1]
            of_host[-1].close()

    def _keep(self, connection: "_Connection") -> bool:
        """Keep a connection, unless its host is in `_given_up`."""
        connection.kept_since = time.monotonic()
        with self._lock:
            if connection.site.host in self._given_up:
                return False
            self._kept.append(connection)
            if len(self._kept) > self._max_kept:
                self._kept.pop(0).close()
        return True


class _Limited:
    """A socket with a deadline for all reads, however slowly bytes arrive, and a limit of `bytes_left`."""

    def begin(self, deadline: Deadline) -> None:
        self.deadline, self.bytes_left = deadline, _FRAMING
        self.has_ended = False  # the server closed it: the headers read so far may be incomplete
        self.settimeout(deadline.remaining())  # type: ignore[attr-defined]

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(self.deadline.remaining())  # type: ignore[attr-defined]
        count: int = super().recv_into(*arguments, **options)  # type: ignore[misc]
        self.has_ended |= not count
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise FetchError("too_large", f"more than {format_bytes(_FRAMING)} of headers and framing besides its body")
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
    """The final response, after any interim responses (RFC 8297)."""

    def begin(self) -> None:
        super().begin()
        while 101 < self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment] # begin anew
            super().begin()


class _Connection(http.client.HTTPConnection):
    response_class = _Response
    wire: Any  # its socket, even after http.client gave it to a response that ends when the connection closes

    def __init__(self, site: Site, networks: tuple[Network, ...]) -> None:
        super().__init__(site.host, site.port)
        self.site, self.kept_since = site, 0.0
        self._networks = networks

    def ask(self, path: str, headers: Mapping[str, str], deadline: Deadline) -> http.client.HTTPResponse:
        """Request a path. Close the connection if there is no response.

        Raises FetchError, OSError, or HTTPException.
        """
        try:
            if self.sock is None:
                self.wire = self.sock = _connect(self.site, self._networks, deadline)
            self.wire.begin(deadline)
            self.request("GET", path, headers=headers)
            return self.getresponse()
        except (FetchError, OSError, http.client.HTTPException):
            self.close()
            raise

    def is_fit(self, site: Site) -> bool:
        """Return whether the connection goes to the site, is open, and has received nothing that was not requested."""
        is_old = time.monotonic() - self.kept_since > _KEPT_SECONDS
        if self.site != site or is_old or (site.is_secure and self.wire.pending()):
            return False
        poll = select.poll()
        poll.register(self.wire, select.POLLIN)
        return not poll.poll(0)


def _connect(site: Site, networks: tuple[Network, ...], deadline: Deadline) -> Any:
    """Connect to the first of the site's addresses that answers. Only the address that is used is checked.

    Raises FetchError or OSError.
    """
    error: Exception = FetchError("dns", "no address")
    for family, address in look_up(site.host, site.port):
        if kind := refusal(address[0], networks):
            raise FetchError("refused_address", f"{address[0]} is {kind}")
        sock = _Socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(deadline.remaining())
            sock.connect(address)
            return _context().wrap_socket(sock, server_hostname=site.host) if site.is_secure else sock
        except (FetchError, OSError) as this:
            sock.close()
            error = this
            if isinstance(this, FetchError | ssl.SSLError):
                break
    raise error


def _read(connection: _Connection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield a body. Its bytes and the chunk sizes do not count toward the limit for everything else."""
    while chunk := response.read1(_CHUNK):
        connection.wire.bytes_left += len(chunk) + len(chunk) // 8
        yield chunk


def _leaves_open(connection: _Connection, response: http.client.HTTPResponse) -> bool:
    """Return whether a connection can be reused: its end is stated once, and was reached (RFC 9112, 6.3)."""
    headers = response.headers
    is_closing = connection.sock is None or any("close" in value.lower() for value in headers.get_all("Connection", []))
    ends = [*headers.get_all("Content-Length", []), *headers.get_all("Transfer-Encoding", [])]
    return not is_closing and len(ends) < 2 and (response.length == 0 or response.isclosed())


@contextmanager
def _as_fetch_errors() -> Iterator[None]:
    try:
        yield
    except ssl.SSLError as error:
        raise FetchError("tls", error) from None
    except TimeoutError:
        raise FetchError("timeout", "no data in time") from None
    except http.client.IncompleteRead as error:
        raise FetchError("incomplete", f"{len(error.partial)} bytes of the last chunk") from None
    except (ConnectionResetError, BrokenPipeError) as error:
        raise FetchError("incomplete", error.strerror or error) from None
    except OSError as error:
        raise FetchError("unreachable", error.strerror or error) from None
    except (http.client.HTTPException, ValueError, ArithmeticError, AssertionError, LookupError, TypeError) as error:
        raise FetchError("bad_response", f"{type(error).__name__}: {error}") from None


@cache
def connections() -> threading.BoundedSemaphore:
    """Return a semaphore for the connections that the process may have in use."""
    files = _open_files()
    return threading.BoundedSemaphore(files - min(_OTHER_FILES, files // 2))


@cache
def _open_files() -> int:
    """Raise the process's limit for open files as high as possible, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the system does not grant the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return 1 << 16 if soft == resource.RLIM_INFINITY else soft
