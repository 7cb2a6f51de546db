"""The HTTP transport reuses idle connections within limits, and never mistakes their leftovers for a response."""

import asyncio
import datetime
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from curate.download import transport
from curate.download.fetch import Fetcher
from curate.download.fetch_error import FetchError
from curate.download.source import NetworkPolicy
from tests.kit.web import Web, port_of, running, started
from tests.kit.web import get as fetch

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
Serve = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def web():
    with running(Web({"a": b"some bytes"}, 8)) as servers:
        servers.keeps = lambda _: True
        yield servers


def fetcher(**keys):
    own = {"contact": "me@example.org", "robots": "ignore", "allow_networks": ["127.0.0.0/8"], "attempts": 1}
    return Fetcher(NetworkPolicy.model_validate(own | keys))


def kept(by):
    """The hosts with idle connections."""
    assert isinstance(by._transport, transport.HttpTransport)
    return [one.site.host for one in by._transport._kept]


@contextmanager
def serving(serve, tls=None):
    """Serve each connection (numbered from 0) with a function; yield the URL."""
    numbers = iter(range(100))

    async def begin(reader, writer):
        try:
            await serve(next(numbers), reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def start():
        return [await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)]

    with started(start) as servers:
        yield f"http{'s' if tls else ''}://127.0.0.1:{port_of(servers)}/"


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A server's TLS context that clients trust as 127.0.0.1."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    certificate = builder.add_extension(address, False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(secret)
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    transport._context.cache_clear()
    yield context
    transport._context.cache_clear()


def test_a_connection_is_reused(web):
    own = fetcher()
    for path in ("image/a", "to//image/a", "header/Age=1", "busy/a", "image/a"):
        for _ in range(3):
            try:
                fetch(own, web.url(path))
            except FetchError as fault:
                assert fault.reason == "http_429"
    assert web.connected[web.hosts[0]] <= 3  # of what is refused, such as 429, the rest is not read
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda i: fetch(own, web.url("image/a", i % 2)), range(80))) == {b"some bytes"}
    assert web.connected[web.hosts[1]] <= 8


def test_connections_per_host_are_limited(web):
    """Over all sites: a host has several, by port and scheme."""
    with running(Web({"a": b"some bytes"}, 1)) as other:
        other.keeps = lambda _: True
        own = fetcher(per_host=1)
        for _ in range(3):
            assert fetch(own, web.url("image/a")) == fetch(own, other.url("image/a")) == b"some bytes"
        assert kept(own) == ["127.0.0.1"]
        assert (web.connected["127.0.0.1"], other.connected["127.0.0.1"]) == (3, 3)


def test_idle_connections_are_limited(web, monkeypatch):
    monkeypatch.setattr(transport, "_KEPT", 3)
    own = fetcher()
    for host in [*range(8), 0, 7]:
        assert fetch(own, web.url("image/a", host)) == b"some bytes"
        assert len(kept(own)) <= 3
    assert kept(own) == ["127.0.0.7", "127.0.0.1", "127.0.0.8"]
    assert [web.connected[host] for host in web.hosts] == [2, 1, 1, 1, 1, 1, 1, 1]


def test_all_connections_are_closed_at_the_end(web):
    own = fetcher()
    fetch(own, web.url("image/a"))
    with own.expecting([]):
        pass
    assert kept(own) == []
    assert fetch(own, web.url("image/a")) == b"some bytes" and web.connected[web.hosts[0]] == 2


def test_an_old_connection_is_not_reused(web, monkeypatch):
    monkeypatch.setattr(transport, "_KEPT_SECONDS", 0.0)
    own = fetcher()
    assert {fetch(own, web.url("image/a")) for _ in range(3)} == {b"some bytes"} and web.connected[web.hosts[0]] == 3


def test_a_connection_that_the_server_closed_is_replaced():
    """Before the request, or instead of a response: neither is an error of the URL."""
    asked = []

    async def serve(number, reader, writer):
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
def test_unrequested_bytes_are_no_response(rest):
    """Together with a response, or after it."""
    came = threading.Event()

    async def serve(number, reader, writer):
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
        assert fetch(own, url) == b"abc" and came.wait(300)
        if rest:
            assert fetch(own, url) == b"abc"


def test_timeouts_apply_to_reused_connections():
    asked = []

    async def serve(number, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"abc")
        await reader.readuntil(b"\r\n\r\n")
        asked.append(number)
        await asyncio.sleep(60)

    with serving(serve) as url:
        own = fetcher()
        assert fetch(own, url) == b"abc"
        with pytest.raises(FetchError, match=r"^timeout"):
            fetch(own, url, 0.3)
    assert asked == [0]  # once


def test_limits_apply_to_each_response():
    """Bytes besides bodies, and seconds, count from zero again."""
    hint = b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"

    async def serve(number, reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(20):
                writer.write(hint)
            writer.write(OK + b"%03d" % number)
            await writer.drain()

    with serving(serve) as url:
        own = fetcher(max_seconds=60)
        assert [fetch(own, url) for _ in range(5)] == [b"000"] * 5


def test_tls(tls):
    """Also for bytes that TLS has decrypted but nobody has read, such as a body that is too long."""
    asked = []

    async def serve(number, reader, writer):
        for more in (b"", OK + b"bad"):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(number)
            writer.write(OK)
            await asyncio.sleep(0.1)
            writer.write(b"abc" + more)
        await reader.read()

    with serving(serve, tls) as url:
        own = fetcher()
        assert {fetch(own, url) for _ in range(4)} == {b"abc"}
    assert asked == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "second",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_response_that_ends_the_connection_is_retried(second):
    """Truncated headers, and statuses about the connection instead of the URL."""
    asked = []

    async def serve(number, reader, writer):
        for answer in (OK + b"abc", second):
            await reader.readuntil(b"\r\n\r\n")
            asked.append(number)
            writer.write(answer)

    with serving(serve) as url:
        own = fetcher()
        assert [fetch(own, url) for _ in range(3)] == [b"abc"] * 3
    assert asked == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    "header",
    [
        "Connection: Close", "Connection: keep-alive, close", "Connection: keep-alive\r\nConnection: close",
        "Content-Length: 4", "Transfer-Encoding: identity",
    ],
)  # fmt: skip
def test_an_ambiguous_connection_is_not_reused(header):
    numbers = []

    async def serve(number, reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            numbers.append(number)
            writer.write(OK[:-2] + header.encode() + b"\r\n\r\nabc")

    with serving(serve) as url:
        own = fetcher()
        assert [fetch(own, url) for _ in range(2)] == [b"abc"] * 2
    assert numbers == [0, 1]


def test_silent_connections_are_replaced():
    """So that no URL spends all its attempts on silent connections."""

    async def serve(number, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"abc")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(60)

    with serving(serve) as url:
        own = fetcher(attempts=2, pause=0.01)
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: own.fetch(url, 3.0), range(40)))
        assert {outcome.data for outcome in outcomes} == {b"abc"}
        assert sum(outcome.attempts for outcome in outcomes) <= 40 + 4
        with own.expecting([]):
            pass
        assert fetch(own, url) == b"abc" and len(kept(own)) == 1  # as at the beginning


@pytest.mark.parametrize("length", ["Content-Length: 3, 3", "X: y", "Content-Length: 4"])
def test_a_body_that_only_a_close_ends(length):
    """A server with a wrong length closes if asked to, as img2dataset does: the next attempt asks for it."""

    async def serve(number, reader, writer):
        while b"\r\nConnection: close\r\n" not in await reader.readuntil(b"\r\n\r\n"):
            writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\nabc".encode())
        writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\nabc".encode())

    with serving(serve) as url:
        own = fetcher(attempts=4, pause=0.01)  # the second one does, but on a crowded machine
        for _ in range(2):
            if length.endswith("4"):
                with pytest.raises(FetchError, match=r"^incomplete: 3 of 4 bytes"):
                    fetch(own, url, 0.5)
            else:
                assert fetch(own, url, 0.5) == b"abc"


def test_http_client_behaves_as_the_transport_assumes():
    """Relies on undocumented details of http.client: if a release changes them, read `transport.py` again."""
    here, there = socket.socketpair()
    client = http.client.HTTPConnection("a")
    client.sock, client.response_class = here, transport._Response
    there.sendall(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
    client.request("GET", "/")
    answer = client.getresponse()
    assert isinstance(answer, transport._Response) and client.sock is here
    assert (answer.status, answer.headers["X"], answer.length, answer.isclosed()) == (200, None, 3, False)
    assert answer.read1(9) == b"abc" and answer.length == 0
    answer.close()
    there.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
    there.shutdown(socket.SHUT_WR)
    client.request("GET", "/")
    answer = client.getresponse()
    assert client.sock is None and answer.length is None  # the socket is the answer's alone
    assert b"".join(iter(lambda: answer.read1(2), b"")) == b"abc" and answer.isclosed()
    there.close()
