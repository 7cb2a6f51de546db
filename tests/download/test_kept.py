"""What a server leaves open is asked again: no more of it than it may, and what comes by it is what a new connection brings."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from curate.download import connection
from curate.download.faults import FetchFault
from curate.download.fetch import Fetcher
from curate.download.policy import NetworkPolicy
from tests.download.web import Web, port_of, running, started

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
Serve = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def web() -> Iterator[Web]:
    with running(Web({"a": b"some bytes"}, 8)) as servers:
        servers.keeps = lambda _: True
        yield servers


def fetcher(**keys: Any) -> Fetcher:
    own = {"contact": "me@example.org", "robots": "ignore", "allow_networks": ["127.0.0.0/8"], "attempts": 1}
    return Fetcher(NetworkPolicy.model_validate(own | keys))


def fetch(by: Fetcher, url: str, timeout: float = 5.0) -> bytes:
    return by.fetch(url, timeout, lambda _: None).getvalue()


@contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """Serve each connection, of which the first is number 0, by this; yields the URL."""
    numbers = iter(range(100))

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(next(numbers), reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def start() -> list[asyncio.Server]:
        return [await asyncio.start_server(begin, "127.0.0.1", 0)]

    with started(start) as servers:
        yield f"http://127.0.0.1:{port_of(servers)}/"


def test_a_connection_is_asked_again(web: Web) -> None:
    own = fetcher()
    for path in ("image/a", "to//image/a", "header/Age=1", "busy/a", "image/a"):
        for _ in range(3):
            try:
                fetch(own, web.url(path))
            except FetchFault as fault:
                assert fault.reason == "http_429"
    assert web.connected[web.hosts[0]] <= 3  # of what is refused, such as 429, the rest is not read
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda i: fetch(own, web.url("image/a", i % 2)), range(80))) == {b"some bytes"}
    assert web.connected[web.hosts[1]] <= 8


def test_a_host_has_no_more_than_it_may(web: Web) -> None:
    """Whatever the site: a host has several, by their ports and schemes."""
    with running(Web({"a": b"some bytes"}, 1)) as other:
        other.keeps = lambda _: True
        own = fetcher(per_host=1)
        for _ in range(3):
            assert fetch(own, web.url("image/a")) == fetch(own, other.url("image/a")) == b"some bytes"
        kept = own._kept._kept["127.0.0.1"]
        assert len(kept) == own._kept._count == 1
        assert (web.connected["127.0.0.1"], other.connected["127.0.0.1"]) == (3, 3)


def test_no_more_are_kept_than_files_allow(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_KEPT", 3)
    own = fetcher()
    for host in [*range(8), 0, 7]:
        assert fetch(own, web.url("image/a", host)) == b"some bytes"
        assert own._kept._count == sum(map(len, own._kept._kept.values())) <= 3
    assert list(own._kept._kept) == ["127.0.0.7", "127.0.0.1", "127.0.0.8"]
    assert [web.connected[host] for host in web.hosts] == [2, 1, 1, 1, 1, 1, 1, 1]


def test_none_is_left_in_the_end(web: Web) -> None:
    own = fetcher()
    fetch(own, web.url("image/a"))
    own.close()
    assert own._kept._count == 0 and not own._kept._kept
    assert fetch(own, web.url("image/a")) == b"some bytes" and web.connected[web.hosts[0]] == 2


def test_an_old_one_is_not_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_KEPT_SECONDS", 0.0)
    own = fetcher()
    assert {fetch(own, web.url("image/a")) for _ in range(3)} == {b"some bytes"} and web.connected[web.hosts[0]] == 3


def test_one_that_was_closed_meanwhile() -> None:
    """Before it is asked, and by the answer to it: neither is a fault of the URL."""
    asked: list[int] = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for text in (b"abc", b"def"):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(number)
            if text == b"def" and number == 0:
                return  # no answer
            writer.write(OK + text)
            await writer.drain()

    with serving(serve) as url:
        own = fetcher()
        assert [fetch(own, url) for _ in range(4)] == [b"abc", b"abc", b"def", b"abc"]
    assert asked == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("rest", [b"", b"more", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"])
def test_what_comes_unasked_is_no_answer(rest: bytes) -> None:
    """With an answer, or after it."""
    came = threading.Event()

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"abc" + rest)
        await writer.drain()
        if rest:
            await asyncio.sleep(0.1)
            writer.write(rest)
            await writer.drain()
        came.set()
        await asyncio.sleep(1)

    with serving(serve) as url:
        own = fetcher()
        assert fetch(own, url) == b"abc" and came.wait(10)
        if rest:
            assert fetch(own, url) == b"abc"


def test_a_wait_is_as_long_as_on_a_new_one() -> None:
    asked: list[int] = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"abc")
        await reader.readuntil(b"\r\n\r\n")
        asked.append(number)
        await asyncio.sleep(60)

    with serving(serve) as url:
        own = fetcher()
        assert fetch(own, url) == b"abc"
        with pytest.raises(FetchFault, match=r"^timeout"):
            fetch(own, url, 0.3)
    assert asked == [0]  # once


def test_limits_are_those_of_one_answer() -> None:
    """Bytes besides bodies, and seconds, count anew."""
    hint = b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(20):
                writer.write(hint)
            writer.write(OK + b"%03d" % number)
            await writer.drain()

    with serving(serve) as url:
        own = fetcher(max_seconds=60)
        assert [fetch(own, url) for _ in range(5)] == [b"000"] * 5
