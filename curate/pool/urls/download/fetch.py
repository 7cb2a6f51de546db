"""Fetches one URL, or says why not: attempts, redirects, robots.txt, opt-outs and limits around one request by `http.client`.

`Downloads` takes the place of `urllib.request`'s opener in the threads of a download, so that img2dataset's own code fetches by it.
"""

import http.client
import io
import re
import ssl
import string
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, Self

from curate import __version__
from curate.base.schema import MISSING_REASONS
from curate.pool.urls.download.connection import (
    Connection,
    Deadline,
    KeptConnections,
    Response,
    Site,
    connections,
    guarded,
)
from curate.pool.urls.download.faults import FetchFault, opt_out
from curate.pool.urls.download.hosts import Hosts, Robots
from curate.pool.urls.download.policy import NetworkPolicy

AGENT = "curate"  # as robots.txt and headers name it
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (429, 503)
_OF_CONNECTIONS = (400, 408)  # that may be of a connection which was idle, or of what came by it before
_CHUNK = 1 << 16
_ROBOTS_REDIRECTS = 5  # at least, of one robots.txt (2.3.1.2)
_ROBOTS_BYTES = 500 * 1024  # of robots.txt that are read (RFC 9309, 2.5)
_CONTROL = re.compile("[\0- \x7f]")
_RANGE = re.compile(r"bytes 0-([0-9]{1,18})/([0-9]{1,18})")
_SAFE = "%/:=&?~#+!$,;'@()*[]"  # what a path has of these is as its author wrote it


@dataclass(frozen=True)
class Outcome:
    """What became of a URL.

    Attributes:
        reason: why it gave nothing (see `schema.MISSING_REASONS`); empty where it was fetched.
        detail: the message that goes with it.
        may_pass: whether a later attempt may go better.
        attempts: how many there were.
        time: when the last one ended, in seconds since 1970.
        bytes: that were fetched; 0 where it gave nothing.
    """

    reason: str
    detail: str
    may_pass: bool
    attempts: int
    time: float
    bytes: int


class Reply(io.BytesIO):
    """What a URL gave: its bytes, as a file, with the headers."""

    def __init__(self, body: bytes, headers: Message, url: str) -> None:
        super().__init__(body)  # which it shares: nothing is copied
        self.size, self.headers, self.url = len(body), headers, url

    def __enter__(self) -> Self:
        return self


@dataclass(frozen=True)
class _Target:
    """A URL in its parts."""

    site: Site
    path: str  # and the query

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises FetchFault for what is no http or https URL."""
        try:
            parts = urllib.parse.urlsplit(url.strip())
            host = parts.hostname or ""
            host = host if host.isascii() else host.encode("idna").decode()
            port = parts.port
            path = urllib.parse.quote(parts.path or "/", _SAFE)
            query = f"?{urllib.parse.quote(parts.query, _SAFE)}" if parts.query else ""
        except ValueError as error:  # UnicodeError is one
            raise FetchFault("bad_url", error) from None
        if parts.scheme not in ("http", "https") or not host or _CONTROL.search(host):
            raise FetchFault("bad_url", f"accepted: http:// and https://, not {url[:100]!r}")
        is_secure = parts.scheme == "https"
        return cls(Site(is_secure, host, port or (443 if is_secure else 80)), path + query)

    @property
    def url(self) -> str:
        return self.site.url + self.path

    def join(self, location: str) -> str:
        """Return the URL that it redirects to. Raises FetchFault."""
        try:
            return urllib.parse.urljoin(self.url, location)
        except ValueError as error:
            raise FetchFault("bad_url", f"redirects to {location[:100]!r}: {error}") from None


class Fetcher:
    """Fetches URLs in many threads at once, as a policy says; what is known of hosts is shared by all."""

    def __init__(self, policy: NetworkPolicy, directives: tuple[str, ...] | None = None) -> None:
        self._policy, self._directives = policy, directives
        self.networks = policy.networks
        self._hosts, self._robots = Hosts(policy.per_host), Robots(AGENT)
        self._kept = KeptConnections()
        agent = f"{AGENT}/{__version__} (+{policy.contact})"
        self._headers = f"User-Agent: {agent}\r\nAccept: image/*, */*;q=0.5\r\nAccept-Encoding: identity\r\n"

    def fetch(self, url: str, timeout: float, note: Callable[[Outcome], None]) -> Reply:
        """Fetch a URL, and say in the end what became of it. Raises FetchFault.

        `timeout`: seconds that connecting and each wait for bytes may take.
        """
        for attempt in range(1, self._policy.attempts + 1):
            fault = None
            try:
                with guarded(self.networks):
                    reply = self._follow(url, timeout)
            except FetchFault as found:
                fault = found.fresh()
            if fault is None:
                note(Outcome("", "", False, attempt, time.time(), reply.size))
                return reply
            pause = self._policy.pause * 2 ** (attempt - 1) if fault.retry_after is None else fault.retry_after
            if not fault.may_pass or attempt == self._policy.attempts or pause > self._policy.max_pause:
                note(Outcome(fault.reason, fault.detail, fault.may_pass, attempt, time.time(), 0))
                raise fault
            time.sleep(pause)
        raise AssertionError  # there is at least one attempt

    def _follow(self, url: str, timeout: float) -> Reply:
        """Fetch a URL and what it redirects to."""
        deadline = Deadline(timeout, self._policy.max_seconds)
        for _ in range(self._policy.max_redirects + 1):
            target = _Target.of(url)
            if self._policy.robots == "respect":
                waited = self._robots.check(
                    target.site.url, target.url, lambda robots: self._read_robots(robots, deadline)
                )
                deadline.extend(waited)
            found = self._ask(target, deadline, self._policy.max_bytes)
            if isinstance(found, Reply):
                return found
            url = target.join(found)
        raise FetchFault("too_many_redirects", f"more than {self._policy.max_redirects}")

    def _read_robots(self, url: str, deadline: Deadline) -> bytes:
        for _ in range(max(_ROBOTS_REDIRECTS, self._policy.max_redirects) + 1):
            target = _Target.of(url)
            found = self._ask(target, deadline, _ROBOTS_BYTES, cut=True)
            if isinstance(found, Reply):
                return found.getvalue()
            url = target.join(found)
        return b""  # as where there is none

    def _ask(self, target: _Target, deadline: Deadline, most: int, cut: bool = False) -> Reply | str:
        """Return what one request gives, or where it redirects to; where `cut`, no more than `most` bytes, which else is a fault."""
        began = time.monotonic()
        host, connection, has_answered = target.site.host, None, False
        with self._hosts.slot(host), connections():
            deadline.extend(time.monotonic() - began)
            try:
                with _faults():
                    connection, response = self._request(target, deadline)
                    with response:
                        if response.status in _BUSY:
                            raise _refused(response)
                        self._hosts.answered(host)
                        has_answered = True
                        found = self._answer(response, target, connection, most, cut)
                        if response.leaves_open:
                            self._kept.keep(connection)
                            connection = None
                        return found
            except FetchFault as fault:
                if fault.reason == "timeout":  # perhaps of a body that only a close would end
                    self._kept.give_up(host)
                if not has_answered:
                    self._hosts.failed(host, fault, self._policy.max_pause)
                raise
            finally:
                if connection:
                    connection.close()

    def _request(self, target: _Target, deadline: Deadline) -> tuple[Connection, Response]:
        """Return an answer, and the connection that it comes by: a new one, where one that was kept brings none (RFC 9112, 9.3.1)."""
        ending = "Connection: close\r\n" if self._kept.is_given_up(target.site.host) else ""
        headers = self._headers + ending
        if kept := self._kept.take(target.site):
            try:
                response = kept.get(target.path, headers, deadline)
                if not kept.has_ended and response.status not in _OF_CONNECTIONS:
                    return kept, response
                response.close()
                kept.close()
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                pass
        connection = Connection(target.site, deadline)
        return connection, connection.get(target.path, headers, deadline)

    def close(self) -> None:
        """Close the connections that are kept open; others are made as they are needed."""
        self._kept.close()

    def _answer(self, response: Response, target: _Target, connection: Connection, most: int, cut: bool) -> Reply | str:
        location = response.headers.get("Location")
        if response.status in _REDIRECTS and location:
            return _as_written(location)
        if not 200 <= response.status < 300:
            raise _refused(response)
        if self._policy.opt_out == "respect" and not cut:
            directives = {} if self._directives is None else {"directives": self._directives}
            if header := opt_out(response.headers, AGENT, **directives):
                raise FetchFault("opted_out", header)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT and not _is_whole(response.headers):
            raise FetchFault(
                "incomplete", f"206: {response.headers.get('Content-Range', 'a part that was not asked for')}"
            )
        stated = response.length
        if stated is not None and stated > most and not cut:
            raise FetchFault("too_large", f"{stated:,} bytes")
        body = io.BytesIO()
        while chunk := response.read1(_CHUNK):
            connection.add(len(chunk))
            body.write(chunk)
            if body.tell() > most:
                if cut:
                    break
                raise FetchFault("too_large", f"more than {most:,} bytes")
        if stated is not None and body.tell() < min(stated, most):
            raise FetchFault("incomplete", f"{body.tell():,} of {stated:,} bytes")
        return Reply(body.getvalue(), response.headers, target.url)


class Downloads:
    """The URLs of one shard: a fetcher, in the place of `urllib.request`'s opener, and what became of each URL.

    `outcomes`: by URL and the text of the fault, which is empty where it was fetched: a URL that a shard has twice may have two.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self.networks = fetcher.networks
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self._fetcher = fetcher

    def open(self, request: Any, data: None = None, timeout: float = 10.0) -> Reply:
        """Fetch a URL, or a `urllib.request.Request` of one, of which nothing else counts; see `Fetcher.fetch`."""
        url: str = request if isinstance(request, str) else request.full_url

        def note(outcome: Outcome) -> None:
            self.outcomes[url, str(FetchFault(outcome.reason, outcome.detail)) if outcome.reason else ""] = outcome

        return self._fetcher.fetch(url, timeout, note)

    def outcome(self, url: str, message: str) -> Outcome | None:
        """Return what became of a URL as a list has it, where img2dataset says this of it; None where it never came here."""
        with suppress(ValueError):  # a URL that is none
            url = urllib.request.Request(url).full_url  # as img2dataset asks for it
        return self.outcomes.get((url, message)) or self.outcomes.get((url, ""))


@contextmanager
def _faults() -> Iterator[None]:
    """Raise what an exchange with a server ends by as a FetchFault."""
    try:
        yield
    except ssl.SSLError as error:
        raise FetchFault("tls", error) from None
    except TimeoutError:
        raise FetchFault("timeout", "no data in time") from None
    except http.client.IncompleteRead as error:
        raise FetchFault("incomplete", f"{len(error.partial)} bytes of the last chunk") from None
    except http.client.RemoteDisconnected:
        raise FetchFault("incomplete", "no answer") from None
    except (ConnectionResetError, BrokenPipeError) as error:
        raise FetchFault("incomplete", error.strerror or error) from None
    except OSError as error:
        raise FetchFault("unreachable", error.strerror or error) from None
    except (http.client.HTTPException, ValueError, ArithmeticError, AssertionError, LookupError, TypeError) as error:
        raise FetchFault("bad_response", f"{type(error).__name__}: {error}") from None


def _is_whole(headers: Message) -> bool:
    """Return whether the part that an answer 206 brings is all there is (RFC 9110, 14.4): no part was asked for."""
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    return found is not None and int(found[1]) + 1 == int(found[2])


def _refused(response: http.client.HTTPResponse) -> FetchFault:
    """Return what an answer says that brings nothing; a status that HTTP does not know is the first of its class (RFC 9110, 15)."""
    reasons = (f"http_{response.status}", f"http_{response.status // 100}00")
    reason = next((reason for reason in reasons if reason in MISSING_REASONS), "http_other")
    return FetchFault(reason, f"{response.status} {response.reason}", _retry_after(response))


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    """Return the seconds that a server asks to wait (RFC 9110, 10.2.3); None where it does not."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None


def _as_written(location: str) -> str:
    """Return a redirect's URL with the characters that its author wrote; `http.client` takes each byte for one."""
    data = location.encode("latin-1", "replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return urllib.parse.quote(data, string.punctuation)
