"""The HTTP transport reuses idle connections within limits, and never mistakes their leftovers for a response."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
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


@contextmanager
def answering(*answers, tls=None):
    """Answer the requests of each connection with these bytes in turn, and then close it.

    Of a list, write the parts a moment apart. Yields the URL, and the connection's number for each request.
    """
    requests = []

    async def serve(number, reader, writer):
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            requests.append(number)
            for part in answer if isinstance(answer, list) else [answer]:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.1 if isinstance(answer, list) else 0)

    with serving(serve, tls) as url:
        yield url, requests


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
            assert own.fetch(web.url(path), 10).data or path == "busy/a"
    assert web.connected[web.hosts[0]] <= 3  # of what is refused, such as 429, the rest is not read
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda i: fetch(own, web.url("image/a", i % 2)), range(80))) == {b"some bytes"}
    assert web.connected[web.hosts[1]] <= 8


def test_idle_connections_are_limited(web, monkeypatch):
    """In all, in time, and for each host over all of its ports and schemes; the end of a download closes them."""
    with running(Web({"a": b"some bytes"}, 1)) as other:
        other.keeps = lambda _: True
        own = fetcher(per_host=1)
        for _ in range(3):
            assert fetch(own, web.url("image/a")) == fetch(own, other.url("image/a")) == b"some bytes"
        assert kept(own) == ["127.0.0.1"]
        assert (web.connected["127.0.0.1"], other.connected["127.0.0.1"]) == (3, 3)
    monkeypatch.setattr(transport, "_KEPT", 3)
    own = fetcher()
    web.connected.clear()
    for host in [*range(8), 0, 7]:
        assert fetch(own, web.url("image/a", host)) == b"some bytes"
        assert len(kept(own)) <= 3
    assert kept(own) == ["127.0.0.7", "127.0.0.1", "127.0.0.8"]
    assert [web.connected[host] for host in web.hosts] == [2, 1, 1, 1, 1, 1, 1, 1]
    with own.expecting([]):
        pass
    assert kept(own) == []
    monkeypatch.setattr(transport, "_KEPT_SECONDS", 0.0)
    assert {fetch(own, web.url("image/a")) for _ in range(3)} == {b"some bytes"} and web.connected[web.hosts[0]] == 5


ABC = OK + b"abc"
BAD = OK + b"bad"
ENDED = [  # answers of a server that then closes the connection, and the connection that each of 3 requests reaches
    ([ABC], [0, 1, 2]),
    ([ABC, b""], [0, 0, 1, 1, 2]),  # instead of a response
    *(([ABC, second], [0, 0, 1, 1, 2]) for second in (  # truncated headers, and statuses about the connection, not the URL
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3",
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    )),
    *(([OK[:-2] + header + b"\r\n\r\nabc"] * 9, [0, 1, 2]) for header in (  # an ambiguous end is not reused
        b"Connection: Close", b"Connection: keep-alive, close", b"Connection: keep-alive\r\nConnection: close",
        b"Content-Length: 4", b"Transfer-Encoding: identity",
    )),
    *(([ABC + rest] * 9, None) for rest in (b"more", BAD)),  # bytes that nobody requested are no response, on any connection
    ([[OK, b"abc"], [OK, b"abc" + BAD]], [0, 0, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "connections"), ENDED)
def test_a_connection_that_ends_or_may_have_leftovers_is_replaced(answers, connections):
    """Neither is an error of the URL."""
    with answering(*answers) as (url, requests):
        own = fetcher()
        assert [fetch(own, url) for _ in range(3)] == [b"abc"] * 3
    assert connections in (None, requests)


@pytest.mark.parametrize("rest", [b"more", BAD])
def test_bytes_that_arrive_later_are_no_response(rest):
    came = threading.Event()

    async def serve(number, reader, writer):
        for part in (ABC, rest):
            if part is ABC:
                await reader.readuntil(b"\r\n\r\n")
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.1)
        came.set()
        await asyncio.sleep(1)

    with serving(serve) as url:
        own = fetcher()
        assert fetch(own, url) == b"abc" and came.wait(300)
        assert fetch(own, url) == b"abc"


def test_tls(tls):
    """Also for bytes that TLS has decrypted but nobody has read, such as a body that is too long."""
    with answering([OK, b"abc"], [OK, b"abc" + BAD], b"", tls=tls) as (url, requests):
        own = fetcher()
        assert {fetch(own, url) for _ in range(4)} == {b"abc"}
    assert requests == [0, 0, 1, 1]


def test_limits_apply_to_each_response():
    """Bytes besides bodies, and seconds, count from zero again; timeouts apply to reused connections."""
    hint = b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 60_000 + b"\r\n\r\n"
    with answering(*[hint * 20 + ABC] * 5) as (url, requests):
        own = fetcher(max_seconds=60)
        assert [fetch(own, url) for _ in range(5)] == [b"abc"] * 5
    assert requests == [0] * 5
    with answering(ABC, [b""] * 600) as (url, requests):
        own = fetcher()
        assert fetch(own, url) == b"abc"
        with pytest.raises(FetchError, match=r"^timeout"):
            fetch(own, url, 0.3)
    assert requests == [0, 0]  # once


def test_silent_connections_are_replaced():
    """So that no URL spends all its attempts on silent connections."""
    with answering(ABC, [b""] * 600) as (url, _):
        own = fetcher(attempts=2, pause=0.01)
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: own.fetch(url, 1.0), range(20)))
        assert {outcome.data for outcome in outcomes} == {b"abc"}
        assert sum(outcome.attempts for outcome in outcomes) <= 20 + 4
        with own.expecting([]):
            pass
        assert fetch(own, url) == b"abc" and len(kept(own)) == 1  # as at the beginning


@pytest.mark.parametrize("length", ["Content-Length: 3, 3", "X: y", "Content-Length: 4"])
def test_a_body_that_only_a_close_ends(length):
    """A server with a wrong length closes if asked to, as img2dataset does: the next attempt asks for it."""
    answer = f"HTTP/1.1 200 OK\r\n{length}\r\n\r\nabc".encode()

    async def serve(number, reader, writer):
        while b"\r\nConnection: close\r\n" not in await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
        writer.write(answer)

    with serving(serve) as url:
        outcome = fetcher(attempts=4, pause=0.01).fetch(url, 0.5)  # on a crowded machine, more than two
    assert outcome.data == (None if length.endswith("4") else b"abc")
    assert outcome.data or str(outcome.fault).startswith("incomplete: 3 of 4 bytes")
