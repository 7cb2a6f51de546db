"""Fetches single URLs from servers of every kind, and checks the bytes or the reason for failure."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from functools import partial

import pytest

from curate.download import addresses, transport
from curate.download.fetch import Fetcher
from curate.download.fetch_error import FetchError
from curate.download.robots import opt_out
from curate.download.source import NetworkPolicy
from tests.download.fake_transport import FakeTransport
from tests.download.fake_transport import fetcher as fake_fetcher
from tests.kit.waiting import wait_until
from tests.kit.web import Web, get, running

IMAGE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def web():
    with running(Web({"a": IMAGE, "b": b"b"}, hosts=4)) as servers:
        yield servers


def fetcher(**keys):
    defaults = {
        "contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "pause": 0.01, "max_seconds": 20,
        "max_pause": 1,
    }  # fmt: skip
    return Fetcher(NetworkPolicy.model_validate(defaults | keys))


def fault(url, timeout=10, **keys):
    """The reason for failure, and the number of attempts."""
    outcome = fetcher(**keys).fetch(url, timeout)
    assert outcome.fault and outcome.data is None
    assert len(str(outcome.fault)) <= 900 and str(outcome.fault).isprintable()
    return outcome.fault.reason, outcome.attempts


def test_an_image(web):
    began = time.time()
    outcome = fetcher().fetch(web.url("image/a"), 10)
    assert (outcome.data, outcome.fault, outcome.attempts) == (IMAGE, None, 1) and began <= outcome.time <= time.time()
    assert web.log[-1][2]["user-agent"].startswith("curate/") and "me@example.org" in web.log[-1][2]["user-agent"]


@pytest.mark.parametrize(
    ("path", "reason", "attempts"),
    [
        ("status/404", "http_404", 1),
        ("status/403", "http_403", 1),
        ("status/410", "http_410", 1),
        ("status/408", "http_408", 3),
        ("status/425", "http_425", 3),
        ("status/429", "http_429", 3),
        ("status/500", "http_500", 3),
        ("status/304", "http_304", 1),
        ("status/499", "http_400", 1),  # unknown ones are the first of their class
        ("status/520", "http_500", 3),
        ("status/999", "http_other", 1),
        ("status/206", "incomplete", 1),
        ("wait/5", "http_503", 1),  # which is longer than max_pause
        ("loop/", "too_many_redirects", 1),
        ("to/file:///etc/passwd", "bad_url", 1),
        ("to/ftp://127.0.0.1/a", "bad_url", 1),
        ("to/http://10.0.0.1/", "refused_address", 1),
        ("to/http://169.254.169.254/latest/meta-data", "refused_address", 1),
        ("to/http://[::1]/", "refused_address", 1),
        ("to/http://0.0.0.0/", "refused_address", 1),
        ("short", "incomplete", 1),
        ("chunk", "incomplete", 1),
        ("reset", "incomplete", 1),
        ("noise", "bad_response", 1),
        ("large", "too_large", 1),
        ("endless", "too_large", 1),
    ],
)
def test_faults(web, path, reason, attempts):
    assert fault(web.url(path), robots="ignore") == (reason, attempts)


@pytest.mark.parametrize("path", ["slow", "slow_header", "silent"])
def test_endless_responses_time_out(web, path):
    assert fault(web.url(path), timeout=0.5, max_seconds=0.7, attempts=2) == ("timeout", 2)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://a.example/", "data:image/png;base64,AA", "http://", "http:///a", "http://[::1",
        "http://a b/", "", "http://a:99999/", "nothing", "http://\x00/",
    ],
)  # fmt: skip
def test_malformed_urls(url):
    assert fault(url) == ("bad_url", 1)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "2130706433",
        "0x7f.1", "0",
    ],
)  # fmt: skip
def test_private_addresses(web, host):
    """Also numbers that the system's library reads as an address."""
    before = len(web.log)
    assert fault(f"http://{host}:{web.port}/image/a", allow_networks=[]) == ("refused_address", 1)
    assert len(web.log) == before


def test_unknown_host_names():
    assert fault("http://nothing.invalid/a") == ("dns", 3)
    assert fault(f"http://{'a' * 70}.example/", attempts=1)[0] == "dns"


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert fault(f"http://127.0.0.1:{taken.getsockname()[1]}/", robots="ignore") == ("unreachable", 1)


def test_tls_must_be_trusted(web):
    assert fault(web.url("image/a").replace("http:", "https:"), robots="ignore")[0] == "tls"


def test_attempts(web):
    outcome = fetcher().fetch(web.url("busy/a"), 10)
    assert (outcome.data, outcome.attempts) == (IMAGE, 2)


def test_redirects_and_odd_urls(web):
    one = fetcher()
    assert get(one, web.url(f"to/{web.url('image/b', 1)}")) == b"b"
    assert get(one, web.url("to//image/b")) == b"b"
    assert get(one, web.url("image/a#part?x")) == IMAGE
    with pytest.raises(FetchError, match="http_404"):
        get(one, web.url("bücher und so?q=ü&r=%20"))
    assert web.log[-1][1] == "/b%C3%BCcher%20und%20so?q=%C3%BC&r=%20"
    assert get(one, web.url("image/a").replace("://", "://user:pass word@")) == IMAGE
    assert "authorization" not in web.log[-1][2] and "user" not in web.log[-1][2]["host"]


OPTED_OUT = [
    "X-Robots-Tag=noai", "X-Robots-Tag=noindex,%20NoImageAI", "X-Robots-Tag=curate:%20noai", "X-Robots-Tag=None",
    "X-Robots-Tag=unavailable_after:%202030,%20none", "TDM-Reservation=1", "Content-Usage=train-ai=n",
    "Content-Usage=search=y,%20train-ai=n;x",
]  # fmt: skip
NOT_OPTED_OUT = [
    "X-Robots-Tag=nofollow", "X-Robots-Tag=googlebot:%20noai", "X-Robots-Tag=googlebot:%20none", "X-Robots-Tag=all",
    "X-Robots-Tag=unavailable_after:%202030", "TDM-Reservation=0", "Content-Usage=train-ai=y",
    "Content-Usage=search=n",
]  # fmt: skip


@pytest.mark.parametrize("header", OPTED_OUT)
def test_opt_outs(web, header):
    assert fault(web.url(f"header/{header}")) == ("opted_out", 1)
    assert get(fetcher(opt_out="ignore"), web.url(f"header/{header}")) == IMAGE


@pytest.mark.parametrize("header", NOT_OPTED_OUT)
def test_no_opt_outs(web, header):
    assert get(fetcher(), web.url(f"header/{header}")) == IMAGE


def test_directives_that_are_named():
    """`none` means noindex and nofollow: it counts if one of these counts."""
    headers = Message()
    headers["X-Robots-Tag"] = "none"
    found = [opt_out(headers, "curate", named) for named in ([], ["noai"], [" NoFollow"], ["noindex"])]
    assert found == [None, None, "X-Robots-Tag: none", "X-Robots-Tag: none"]


def test_robots(web):
    web.robots = {
        web.hosts[0]: (200, "User-agent: *\nDisallow: /\n\nUser-agent: curate\nDisallow: /image/b$\n"),
        web.hosts[1]: (500, ""),
        web.hosts[2]: (403, "User-agent: *\nDisallow: /"),
        web.hosts[3]: (200, "User-agent: *\nDisallow: /*a\n"),
    }
    try:
        before = web.asked("robots.txt")
        one = fetcher(attempts=1)
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(partial(get, one), [web.url("image/a")] * 20)) == {IMAGE}
        assert web.asked("robots.txt") == before + 1
        with pytest.raises(FetchError, match=rf"^robots: http://127.0.0.1:{web.port}/robots.txt$"):
            get(one, web.url("image/b"))
        with pytest.raises(FetchError, match=r"^http_500"):
            get(one, web.url("image/a", 1))
        assert get(one, web.url("image/a", 2)) == IMAGE
        with pytest.raises(FetchError, match=r"^robots"):
            get(one, web.url("image/a", 3))
        with pytest.raises(FetchError, match=r"^robots"):  # also of where it redirects to
            get(one, web.url(f"to/{web.url('image/a', 3)}", 2))
        assert get(fetcher(robots="ignore"), web.url("image/a", 3)) == IMAGE
    finally:
        web.robots = {}


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("curate", True), ("CURATE", True), ("Curate/2.0 (of any kind)", True), ("*", True), ("cur", False),
        ("curated", False), ("curate-images", False), ("my curate", False),
    ],
)  # fmt: skip
def test_agents_of_robots_txt(web, name, is_ours):
    """By product token (RFC 9309, 2.2.1); a byte order mark is ignored."""
    web.robots = {web.hosts[0]: (200, f"\ufeffUser-Agent: {name}\nDisallow: /image/b\nAllow: /image/a\n")}
    try:
        one = fetcher()
        assert get(one, web.url("image/a")) == IMAGE
        if is_ours:
            with pytest.raises(FetchError, match=r"^robots"):
                get(one, web.url("image/b"))
        else:
            assert get(one, web.url("image/b")) == b"b"
    finally:
        web.robots = {}


def test_robots_txt_by_its_standard(web):
    """At least five redirects, also to other hosts (RFC 9309, 2.3.1.2); statuses (2.3.1.3); the longest match (2.2.2)."""
    hops = web.url("to//raw/rules", 1)
    for host in (2, 3, 1):
        hops = web.url(f"to/{hops}", host)
    web.raw["rules"] = OK + b"\r\nUser-agent: *\nDisallow: /image\nAllow: /image/a\nAllow: /image\n", b""
    web.robots = {
        web.hosts[0]: (302, hops),  # and four more
        web.hosts[1]: (499, ""),
        web.hosts[2]: (429, ""),
        web.hosts[3]: (302, "/loop/"),
    }
    try:
        one = fetcher(attempts=1, max_redirects=0)
        assert get(one, web.url("image/a")) == IMAGE and web.asked("raw/rules") == 1
        assert get(one, web.url("image/b")) == b"b"  # of two as long, what allows
        assert get(one, web.url("image/a", 1)) == IMAGE
        with pytest.raises(FetchError, match=r"^http_429: while reading robots.txt"):
            get(one, web.url("image/a", 2))
        assert get(one, web.url("image/a", 3)) == IMAGE
    finally:
        web.robots = {}


def test_connections_of_a_host(web):
    web.most.clear()
    one = fetcher(per_host=3, robots="ignore")
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(partial(get, one), [web.url("image/a", i % 2) for i in range(60)]))
    assert web.most == {web.hosts[0]: 3, web.hosts[1]: 3}


OK = b"HTTP/1.1 200 OK\r\n"
PART = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes "
TO = b"HTTP/1.1 302 Found\r\nLocation: "
# What is written, then for ever, and the reason that it gives nothing for; None: it gives b"image".
HOSTILE = {
    "header_without_end": (OK + b"X: ", b"x" * 65536, "bad_response"),
    "headers_without_end": (OK, b"X: y\r\n" * 1000, "bad_response"),
    "status_without_end": (b"HTTP/1.1 200 ", b"x" * 65536, "bad_response"),
    "answers_before_the_answer": (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 1000, "too_large"),
    "trailers_without_end": (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 5000, "too_large"),
    "extensions_of_chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", (b"1;" + b"x" * 60000 + b"\r\na\r\n") * 20, "too_large"),
    "chunk_size_is_none": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"", "incomplete"),
    "chunk_size_is_negative": (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc", b"", "incomplete"),
    "http_0_9": (b"image", b"", "bad_response"),
    "http_1_0": (b"HTTP/1.0 200 OK\r\n\r\nimage", b"", None),
    "status_is_no_number": (b"HTTP/1.1 2x0 OK\r\n\r\nimage", b"", "bad_response"),
    "negative_length": (OK + b"Content-Length: -1\r\n\r\nimage", b"", None),
    "length_is_none": (OK + b"Content-Length: five\r\n\r\nimage", b"", None),
    "length_of_many_digits": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nimage", b"", None),
    "two_lengths": (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nimage", b"", None),
    "length_and_chunks": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nimage\r\n0\r\n\r\n", b"", None),
    "more_than_its_length": (OK + b"Content-Length: 5\r\n\r\nimage", b"more" * 1000, None),
    "hints_first": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"\r\nimage", b"", None),
    "continue_first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"\r\nimage", b"", None),
    "a_part": (PART + b"0-4/1000\r\n\r\nimage", b"", "incomplete"),
    "a_later_part": (PART + b"5-9/10\r\n\r\nimage", b"", "incomplete"),
    "a_part_of_unknown": (PART + b"0-4/*\r\n\r\nimage", b"", "incomplete"),
    "a_part_that_is_all": (PART + b"0-4/5\r\n\r\nimage", b"", None),
    "switches": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"", "http_other"),
    "cookies": (OK + b"Set-Cookie: a=b\r\n" * 50 + b"\r\nimage", b"", None),
    "latin_headers": (OK + b"X-\xe4: \xff\xfe\r\n\r\nimage", b"", None),
    "status_304": (b"HTTP/1.1 304 Not Modified\r\n\r\n", b"", "http_304"),
    "to_no_url": (TO + b"http://[::1\r\n\r\n", b"", "bad_url"),
    "to_a_port_that_is_none": (TO + b"http://a:99999999/\r\n\r\n", b"", "bad_url"),
    "to_nowhere": (TO + b"\r\n\r\n", b"", "http_302"),
    "to_gopher": (TO + b"gopher://a/\r\n\r\n", b"", "bad_url"),
    "to_loopback_v6": (TO + b"http://[::ffff:10.0.0.1]/\r\n\r\n", b"", "refused_address"),
    "to_a_user": (TO + b"http://127.0.0.1@10.0.0.1/\r\n\r\n", b"", "refused_address"),
    "to_a_backslash": (TO + b"http://127.0.0.1\\@10.0.0.1/\r\n\r\n", b"", "refused_address"),
    "to_no_name": (TO + "http://bücher.invalid/\r\n\r\n".encode(), b"", "dns"),
    "to_bytes": (TO + b"http://\xff\xfe.invalid/\r\n\r\n", b"", "dns"),
    "retry_after_no_date": (b"HTTP/1.1 503 Busy\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 +99999999999999999\r\n\r\n", b"", "http_503"),
    "retry_after_long": (b"HTTP/1.1 429 Busy\r\nRetry-After: 99999999999999999999\r\n\r\n", b"", "http_429"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers(web, name):
    first, then, reason = HOSTILE[name]
    web.raw[name] = first, then
    if reason is None:
        assert get(fetcher(robots="ignore"), web.url(f"raw/{name}")) == b"image"
    else:
        assert fault(web.url(f"raw/{name}"), robots="ignore", max_seconds=10, attempts=1) == (reason, 1)


def test_a_redirect_has_the_characters_that_were_written(web):
    web.raw["words"] = TO + "/bücher?q=ä b\r\n\r\n".encode(), b""
    web.raw["bytes"] = TO + b"/b\xfccher%20x\r\n\r\n", b""
    for name, path in {"words": "/b%C3%BCcher?q=%C3%A4%20b", "bytes": "/b%FCcher%20x"}.items():
        assert fault(web.url(f"raw/{name}"), robots="ignore") == ("http_404", 1)
        assert web.log[-1][1] == path


def test_no_url_adds_to_a_request(web):
    url = web.url("none HTTP/1.1\r\nX-Injected: y\r\n\r\nGET /image/b")
    assert fault(url, robots="ignore") == ("http_404", 1)
    assert "x-injected" not in web.log[-1][2] and web.log[-1][1].startswith("/none%20HTTP/1.1")


def test_max_seconds_includes_redirects(web):
    assert fault(web.url("late/"), timeout=0.4, max_seconds=0.6, attempts=1, max_redirects=20) == ("timeout", 1)


def test_a_name_that_changes_its_address(web, monkeypatch):
    """Public at the first lookup, private later: the address that is connected to is the one that was checked."""
    answers, asked = iter(["93.184.216.34", "127.0.0.1"]), []

    def look_up(*_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), web.port))]

    def connect(sock, address):
        asked.append(address[0])
        if address[0] == "93.184.216.34":
            raise ConnectionRefusedError
        socket.socket.connect(sock, address)

    monkeypatch.setattr(addresses, "_SECONDS", 1e-9)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(transport._Socket, "connect", connect)
    url, before = f"http://rebound.example:{web.port}/image/a", len(web.log)
    reasons = [fault(url, allow_networks=[], attempts=1, robots="ignore")[0] for _ in range(2)]
    assert reasons == ["unreachable", "refused_address"] and asked == ["93.184.216.34"]
    assert len(web.log) == before


def test_a_robots_txt_of_any_size(web):
    """A file with all names times all rules, and an endless one."""
    agents = "".join(f"User-agent: a{i:06d}\n" for i in range(15_000))
    endless = b"#" * 65_536
    try:
        web.robots = {web.hosts[0]: (200, f"{agents}User-agent: Curate/2 # us\n" + "Disallow: /x\n" * 10_000)}
        web.raw["robots"] = OK + b"\r\nUser-agent: *\nDisallow: /x\n", endless
        web.raw["to_robots"] = b"", b""
        web.robots[web.hosts[1]] = (302, "/raw/robots")
        began = time.process_time()
        one = fetcher()
        for host in (0, 1):
            assert get(one, web.url("image/a", host)) == IMAGE
        with pytest.raises(FetchError, match=r"^robots"):
            get(one, web.url("x", 1))
        assert time.process_time() - began < 20
    finally:
        web.robots = {}


def test_a_host_that_never_answers_is_left_alone(web):
    """Its other URLs fail at once with the same reason; later the host may answer again."""
    one = fetcher(robots="ignore", attempts=1, per_host=4)
    before = len(web.log)
    with ThreadPoolExecutor(40) as pool:

        def reason(path):
            try:
                get(one, web.url(path, 1), timeout=0.3)
            except FetchError as found:
                return str(found)
            return ""

        found = list(pool.map(reason, [f"silent/{i}" for i in range(200)]))
    assert set(found) == {"timeout: no data in time"}
    wait_until(lambda: len(web.log) - before >= 12)  # what was asked is read late on a crowded machine
    assert len(web.log) - before <= 16  # of 200
    assert get(one, web.url("image/a", 2)) == IMAGE


def test_a_host_that_answers_is_not_left_alone(web):
    one = fetcher(robots="ignore", attempts=1, per_host=4)
    for _ in range(3):
        for _ in range(8):
            with pytest.raises(FetchError, match=r"^http_503"):
                get(one, web.url("status/503", 3))
        assert get(one, web.url("image/a", 3)) == IMAGE


def test_a_transport_without_a_network():
    """With a fake transport: redirects, robots.txt, opt-outs, limits, and attempts are the fetcher's work."""
    transport = FakeTransport(
        {
            "http://a.example/old": {"status": 301, "Location": "https://b.example/new"},
            "https://b.example/robots.txt": b"User-agent: *\nDisallow: /private",
            "https://b.example/new": b"image",
            "https://b.example/large": bytes(11),
            "https://b.example/reserved": {"body": b"image", "TDM_Reservation": "1"},
            "http://silent.example/": FetchError("timeout", "no data in time"),
        }
    )
    by = fake_fetcher(transport, robots="respect", max_bytes=10, attempts=2)
    outcome = by.fetch("http://a.example/old", 1)
    assert (outcome.data, outcome.attempts) == (b"image", 1)
    assert transport.asked == [
        "http://a.example/robots.txt", "http://a.example/old", "https://b.example/robots.txt",
        "https://b.example/new",
    ]  # fmt: skip
    for path, reason in (
        ("large", "too_large"),
        ("reserved", "opted_out"),
        ("private/a", "robots"),
        ("none", "http_404"),
    ):
        fault = by.fetch(f"https://b.example/{path}", 1).fault
        assert fault and fault.reason == reason
    outcome = by.fetch("http://silent.example", 1)
    assert outcome.fault and (outcome.fault.reason, outcome.attempts) == ("timeout", 2)
