"""Fetches one URL, or says why it cannot: attempts, redirects, robots.txt, opt-outs, and limits.

`Hosts` records, for each host, this process's connections, and the time until which it should send no requests.
"""

import io
import re
import string
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from weakref import WeakValueDictionary

from curate import __version__
from curate.base.schema import MISSING_REASONS
from curate.base.wording import read_retry_after
from curate.download.fetch_error import FetchError
from curate.download.robots import NO_TRAINING, Robots, opt_out
from curate.download.shared_hosts import SharedHosts
from curate.download.source import NetworkPolicy
from curate.download.transport import Answer, Deadline, HttpTransport, Site, connections
from curate.store.store import RunStore

AGENT = "curate"  # the name of curate in robots.txt and in headers
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (429, 503)
_ROBOTS_REDIRECTS = 5  # redirects that must be followed for robots.txt (RFC 9309, 2.3.1.2)
_ROBOTS_BYTES = 500 * 1024  # how much of a robots.txt is read (RFC 9309, 2.5)
_CONTROL = re.compile("[\0- \x7f]")
_RANGE = re.compile(r"bytes 0-([0-9]{1,18})/([0-9]{1,18})")
_SAFE = "%/:=&?~#+!$,;'@()*[]"  # characters in a path that are sent as the author wrote them
_FAILURES = 12  # after this many failures in a row, a host gets no requests for a while
_LEFT_ALONE = 60.0  # seconds
_OF_HOSTS = ("timeout", "http_429", "http_503")  # the failures that count for this
_HOSTS = 10_000  # number of hosts whose failures are remembered


@dataclass
class _Host:
    slots: threading.Semaphore
    pause_ends: float = 0.0
    failures: int = 0  # number of failures since its last answer
    fault: FetchError | None = None
    left_alone_until: float = 0.0

    def pause(self) -> float:
        """Raise FetchError if the host must get no requests now."""
        now = time.monotonic()
        if self.fault and self.left_alone_until > now:
            raise self.fault.fresh()
        return self.pause_ends - now


class Hosts:
    """Shares hosts among threads, with at most `per_host` connections to each host at a time.

    `shared` grants a host's slots among all processes. Without it, this process is the only one.

    If a host repeatedly times out or answers that it is busy, it gets no requests for a while, and its URLs fail at
    once. Otherwise, thousands of URLs would take hours.
    """

    def __init__(self, per_host: int, shared: Callable[[str], AbstractContextManager[object]] = nullcontext) -> None:
        self._per_host, self._shared = per_host, shared
        self._lock = threading.Lock()
        self._hosts = WeakValueDictionary[str, _Host]()  # hosts that are in use or failing
        self._failing: dict[str, _Host] = {}  # hosts that have failed since their last answer

    @contextmanager
    def slot(self, name: str) -> Iterator[None]:
        """Wait for a connection to a host, and until the end of its pause.

        Raises FetchError if the host must get no requests now.
        """
        with self._lock:
            host = self._hosts.setdefault(name, _Host(threading.Semaphore(self._per_host)))
        with host.slots:
            host.pause()  # before the thread waits for a slot
            with self._shared(name):
                while (pause := host.pause()) > 0:
                    time.sleep(min(pause, 1.0))
                yield

    def failed(self, name: str, fault: FetchError, max_pause: float) -> None:
        """Count a failure while the thread has the host's slot, and wait as the host requests, up to `max_pause`."""
        if fault.reason not in _OF_HOSTS:
            return
        host, now = self._hosts[name], time.monotonic()
        with self._lock:
            host.pause_ends = max(host.pause_ends, now + min(fault.retry_after or 0.0, max_pause))
            host.failures, host.fault = host.failures + 1, fault.fresh()
            if host.failures >= _FAILURES:
                host.left_alone_until = now + _LEFT_ALONE
            self._failing[name] = host
            if len(self._failing) > _HOSTS:
                del self._failing[next(iter(self._failing))]

    def answered(self, name: str) -> None:
        """Record an answer while the thread has the host's slot. A pause requested on another connection continues."""
        host = self._hosts[name]
        host.failures, host.fault = 0, None
        with self._lock:
            if host.pause_ends <= time.monotonic():
                self._failing.pop(name, None)


@dataclass(frozen=True)
class Outcome:
    """What fetching a URL gave."""

    data: bytes | None  # None if the fetch failed
    fault: FetchError | None  # None if it succeeded
    attempts: int  # number of attempts
    time: float  # end of the last attempt, in seconds since 1970


class Fetcher:
    """Fetches URLs in many threads with one policy. All threads share what is known about hosts.

    Args:
        policy: which servers to contact, how often, and how much to download.
        directives: the X-Robots-Tag directives for which an image is refused.
        transport: sends requests; None: HTTP.
        queues: a run, and the folder in it through which the run's processes share hosts; None: this process is alone.
    """

    def __init__(
        self,
        policy: NetworkPolicy,
        directives: tuple[str, ...] | None = None,
        transport: HttpTransport | None = None,
        queues: tuple[RunStore, str] | None = None,
    ) -> None:
        self._policy = policy
        self._directives = NO_TRAINING if directives is None else directives
        agent = f"{AGENT}/{__version__} (+{policy.contact})"
        headers = {"User-Agent": agent, "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}
        self._transport = transport or HttpTransport(policy.networks, headers)
        limits = policy.per_host, policy.max_seconds
        self._shared = SharedHosts(*queues, *limits, self._transport.leave) if queues else None
        self._hosts = Hosts(policy.per_host, self._shared.slot if self._shared else nullcontext)
        self._robots = Robots(AGENT)

    def fetch(self, url: str, timeout: float) -> Outcome:
        """Fetch a URL. `timeout` is the limit in seconds for connecting, and for each wait for bytes."""
        for attempt in range(1, self._policy.attempts + 1):
            try:
                deadline = Deadline(timeout, self._policy.max_seconds)
                return Outcome(self._follow(url, deadline), None, attempt, time.time())
            except FetchError as error:
                problem = error.fresh()
            pause = self._policy.pause * 2 ** (attempt - 1) if problem.retry_after is None else problem.retry_after
            if not problem.may_pass or pause > self._policy.max_pause or attempt == self._policy.attempts:
                break
            time.sleep(pause)
        return Outcome(None, problem, attempt, time.time())

    @contextmanager
    def expecting(self, urls: Sequence[str | None]) -> Iterator[None]:
        """Prepare for the URLs that the block fetches. Afterward, close all connections. Raises OSError."""
        shared = self._shared.expecting(_hosts_of(urls)) if self._shared else nullcontext()
        with shared, closing(self._transport):
            yield

    def _follow(self, url: str, deadline: Deadline, is_robots: bool = False) -> bytes:
        """Fetch a URL, and follow redirects. From a long robots.txt, return only the beginning."""
        base, redirects = "", max(_ROBOTS_REDIRECTS if is_robots else 0, self._policy.max_redirects)
        for _ in range(redirects + 1):
            site, path = _split(url, base)
            if self._policy.robots == "respect" and not is_robots:
                began = time.monotonic()
                read = partial(self._follow, deadline=deadline.anew(), is_robots=True)
                self._robots.check(site.url, site.url + path, read)
                deadline.extend(time.monotonic() - began)
            reply = self._ask(site, path, deadline, is_robots)
            if isinstance(reply, bytes):
                return reply
            url, base = reply, site.url + path
        if is_robots:
            return b""  # the same as if the file were missing
        raise FetchError("too_many_redirects", f"more than {redirects}")

    def _ask(self, site: Site, path: str, deadline: Deadline, is_robots: bool) -> bytes | str:
        began, has_answered = time.monotonic(), False
        with self._hosts.slot(site.host), connections():
            deadline.extend(time.monotonic() - began)
            try:
                with self._transport.get(site, path, deadline) as answer:
                    if answer.status in _BUSY:
                        raise _refused(answer)
                    self._hosts.answered(site.host)
                    has_answered = True
                    location = answer.headers.get("Location")
                    if answer.status in _REDIRECTS and location:
                        return _as_written(location)
                    if not 200 <= answer.status < 300:
                        raise _refused(answer)
                    return _begin_of(answer, _ROBOTS_BYTES) if is_robots else self._read(answer)
            except FetchError as error:
                if not has_answered:
                    self._hosts.failed(site.host, error, self._policy.max_pause)
                raise

    def _read(self, answer: Answer) -> bytes:
        """Return a response's body. Raises FetchError if it is opted out, partial, or larger than the policy allows."""
        if self._policy.opt_out == "respect" and (header := opt_out(answer.headers, AGENT, self._directives)):
            raise FetchError("opted_out", header)
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            part = answer.headers.get("Content-Range", "a part that was not requested")
            span = _RANGE.fullmatch(part.strip())
            if span is None or int(span[1]) + 1 != int(span[2]):  # a partial response (RFC 9110, 14.4)
                raise FetchError("incomplete", f"206: {part}")
        limit = self._policy.max_bytes
        if answer.length is not None and answer.length > limit:
            raise FetchError("too_large", f"{answer.length:,} bytes")
        body = _begin_of(answer, limit)
        if len(body) > limit:
            raise FetchError("too_large", f"more than {limit:,} bytes")
        return body


def _begin_of(answer: Answer, limit: int) -> bytes:
    """Return a body, or the part of it that exceeds a limit (bytes). Raises FetchError if it ends early."""
    body = io.BytesIO()
    for chunk in answer.body:
        body.write(chunk)
        if body.tell() > limit:
            break
    if answer.length is not None and body.tell() < min(answer.length, limit):
        raise FetchError("incomplete", f"{body.tell():,} of {answer.length:,} bytes")
    return body.getvalue()  # shares the bytes, without a copy


def _refused(answer: Answer) -> FetchError:
    """Return the reason for a response without content. A status that is not known counts as x00 (RFC 9110, 15)."""
    reasons = (f"http_{answer.status}", f"http_{answer.status // 100}00")
    reason = next((reason for reason in reasons if reason in MISSING_REASONS), "http_other")
    pause = read_retry_after(answer.headers.get("Retry-After"), time.time())
    return FetchError(reason, f"{answer.status} {answer.reason}", pause)


def _as_written(location: str) -> str:
    """Return the URL of a redirect in its original characters. Headers decode each byte as one character."""
    data = location.encode("latin-1", "replace")
    with suppress(UnicodeDecodeError):
        return data.decode()
    return urllib.parse.quote(data, string.punctuation)


def _hosts_of(urls: Sequence[str | None]) -> Iterator[str]:
    for url in urls:
        with suppress(FetchError):
            yield _split(url or "")[0].host


def _split(url: str, base: str = "") -> tuple[Site, str]:
    """Return the site of a URL, and its path and query. `base` is the URL that redirected to it."""
    try:
        url = urllib.parse.urljoin(base, url)
        parts = urllib.parse.urlsplit(urllib.parse.unwrap(url))  # <URL:…>, as in RFC 3986, appendix C
        host = parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
        port = parts.port
        path = urllib.parse.quote(parts.path or "/", _SAFE)
        query = f"?{urllib.parse.quote(parts.query, _SAFE)}" if parts.query else ""
    except ValueError as error:  # includes UnicodeError
        raise FetchError("bad_url", f"redirects to {url[:100]!r}: {error}" if base else error) from None
    if parts.scheme not in ("http", "https") or not host or _CONTROL.search(host):
        raise FetchError("bad_url", f"found {url[:100]!r}; accepted: http:// and https://")
    is_secure = parts.scheme == "https"
    return Site(is_secure, host, port or (443 if is_secure else 80)), path + query
