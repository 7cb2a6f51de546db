"""Fetches single URLs from servers of every kind, and checks the bytes or the reason for failure."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from functools import partial

import pytest

from curate.download import addresses, fetch, transport
from curate.download.fetch import Fetcher, Hosts
from curate.download.fetch_error import FetchError
from curate.download.robots import opt_out
from curate.download.source import NetworkPolicy
from tests.kit.waiting import wait_until
from tests.kit.web import Web, get, running

IMAGE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def web():
    with running(Web({"a": IMAGE, "b": b"b"}, hosts=4)) as servers:
        yield servers


@pytest.fixture
def robots(web):
    """robots.txt by host: (status, text or target of the redirect)."""
    web.robots = {}
    yield web.robots
    web.robots = {}


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


def outcome_of(by, url):
    """The first bytes of a body, or the reason for failure."""
    outcome = by.fetch(url, 10)
    return outcome.data[:5] if outcome.fault is None else outcome.fault.reason


def test_an_image(web):
    began = time.time()
    outcome = fetcher().fetch(web.url("image/a"), 10)
    assert (outcome.data, outcome.fault, outcome.attempts) == (IMAGE, None, 1) and began <= outcome.time <= time.time()
    assert web.log[-1][2]["user-agent"].startswith("curate/") and "me@example.org" in web.log[-1][2]["user-agent"]
    outcome = fetcher().fetch(web.url("busy/a"), 10)
    assert (outcome.data, outcome.attempts) == (IMAGE, 2)


FAULTS = [  # (path, reason, attempts): an unknown status counts as the first one of its class
    ("status/404", "http_404", 1), ("status/403", "http_403", 1), ("status/410", "http_410", 1),
    ("status/408", "http_408", 3), ("status/425", "http_425", 3), ("status/429", "http_429", 3),
    ("status/500", "http_500", 3), ("status/304", "http_304", 1), ("status/499", "http_400", 1),
    ("status/520", "http_500", 3), ("status/999", "http_other", 1), ("status/206", "incomplete", 1),
    ("wait/5", "http_503", 1),  # longer than max_pause
    ("loop/", "too_many_redirects", 1), ("to/file:///etc/passwd", "bad_url", 1), ("to/ftp://127.0.0.1/a", "bad_url", 1),
    ("to/http://10.0.0.1/", "refused_address", 1), ("to/http://169.254.169.254/latest/meta-data", "refused_address", 1),
    ("to/http://[::1]/", "refused_address", 1), ("to/http://0.0.0.0/", "refused_address", 1),
    ("short", "incomplete", 1), ("chunk", "incomplete", 1), ("reset", "incomplete", 1), ("noise", "bad_response", 1),
    ("large", "too_large", 1), ("endless", "too_large", 1),
]  # fmt: skip


@pytest.mark.parametrize(("path", "reason", "attempts"), FAULTS)
def test_faults(web, path, reason, attempts):
    assert fault(web.url(path), robots="ignore") == (reason, attempts)


@pytest.mark.parametrize("path", ["slow", "slow_header", "silent", "late/"])
def test_endless_responses_time_out(web, path):
    """Also a chain of redirects, each of which is fast."""
    limits = {"timeout": 0.4, "max_seconds": 0.6, "attempts": 1, "max_redirects": 20}
    assert fault(web.url(path), **limits) == ("timeout", 1)


URLS = {
    "bad_url": [
        "file:///etc/passwd", "ftp://a.example/", "data:image/png;base64,AA", "http://", "http:///a", "http://[::1",
        "http://a b/", "", "http://a:99999/", "nothing", "http://\x00/",
    ],
    "refused_address": [  # also numbers that the system's library reads as an address
        f"http://{host}:{{port}}/image/a" for host in (
            "127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "2130706433",
            "0x7f.1", "0",
        )
    ],
    "dns": ["http://nothing.invalid/a", f"http://{'a' * 70}.example/"],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "url"), [(reason, url) for reason, urls in URLS.items() for url in urls])
def test_urls_that_are_never_requested(web, reason, url):
    before = len(web.log)
    assert fault(url.replace("{port}", str(web.port)), allow_networks=[], attempts=1) == (reason, 1)
    assert len(web.log) == before


def test_connections_that_fail(web):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert fault(f"http://127.0.0.1:{taken.getsockname()[1]}/", robots="ignore") == ("unreachable", 1)
    assert fault(web.url("image/a").replace("http:", "https:"), robots="ignore")[0] == "tls"


def test_redirects_and_odd_urls(web):
    own = fetcher(robots="ignore")
    assert get(own, web.url(f"to/{web.url('image/b', 1)}")) == get(own, web.url("to//image/b")) == b"b"
    assert get(own, web.url("image/a#part?x")) == IMAGE
    assert get(own, web.url("image/a").replace("://", "://user:pass word@")) == IMAGE
    assert "authorization" not in web.log[-1][2] and "user" not in web.log[-1][2]["host"]
    web.raw["words"] = TO + "/bücher?q=ä b\r\n\r\n".encode(), b""
    web.raw["bytes"] = TO + b"/b\xfccher%20x\r\n\r\n", b""
    for path, requested in {
        "bücher und so?q=ü&r=%20": "/b%C3%BCcher%20und%20so?q=%C3%BC&r=%20",
        "raw/words": "/b%C3%BCcher?q=%C3%A4%20b", "raw/bytes": "/b%FCcher%20x",
        "none HTTP/1.1\r\nX-Injected: y\r\n\r\nGET /image/b": "/none%20HTTP/1.1X-Injected:%20yGET%20/image/b",
    }.items():  # fmt: skip
        assert fault(web.url(path), robots="ignore") == ("http_404", 1)
        assert web.log[-1][1] == requested and "x-injected" not in web.log[-1][2]


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


def test_opt_outs(web):
    for header in OPTED_OUT:
        assert fault(web.url(f"header/{header}")) == ("opted_out", 1), header
        assert get(fetcher(opt_out="ignore"), web.url(f"header/{header}")) == IMAGE
    for header in NOT_OPTED_OUT:
        assert get(fetcher(), web.url(f"header/{header}")) == IMAGE, header
    headers = Message()  # `none` means noindex and nofollow: it counts if one of these counts
    headers["X-Robots-Tag"] = "none"
    found = [opt_out(headers, "curate", named) for named in ([], ["noai"], [" NoFollow"], ["noindex"])]
    assert found == [None, None, "X-Robots-Tag: none", "X-Robots-Tag: none"]


def test_robots(web, robots):
    robots |= {
        web.hosts[0]: (200, "User-agent: *\nDisallow: /\n\nUser-agent: curate\nDisallow: /image/b$\n"),
        web.hosts[1]: (500, ""),
        web.hosts[2]: (403, "User-agent: *\nDisallow: /"),
        web.hosts[3]: (200, "User-agent: *\nDisallow: /*a\n"),
    }
    before = web.asked("robots.txt")
    own = fetcher(attempts=1)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(partial(get, own), [web.url("image/a")] * 20)) == {IMAGE}
    assert web.asked("robots.txt") == before + 1
    with pytest.raises(FetchError, match=rf"^robots: http://127.0.0.1:{web.port}/robots.txt$"):
        get(own, web.url("image/b"))
    redirect = web.url(f"to/{web.url('image/a', 3)}", 2)  # its target's robots.txt counts, too
    urls = [*(web.url("image/a", host) for host in (1, 2, 3)), redirect]
    assert [outcome_of(own, url) for url in urls] == ["http_500", IMAGE[:5], "robots", "robots"]
    assert get(fetcher(robots="ignore"), web.url("image/a", 3)) == IMAGE


AGENTS = {
    "curate": True, "CURATE": True, "Curate/2.0 (of any kind)": True, "*": True, "cur": False, "curated": False,
    "curate-images": False, "my curate": False,
}  # fmt: skip


@pytest.mark.parametrize(("name", "is_ours"), AGENTS.items())
def test_agents_of_robots_txt(web, robots, name, is_ours):
    """By product token (RFC 9309, 2.2.1); a byte order mark is ignored."""
    robots[web.hosts[0]] = (200, f"\ufeffUser-Agent: {name}\nDisallow: /image/b\nAllow: /image/a\n")
    own = fetcher()
    assert get(own, web.url("image/a")) == IMAGE and outcome_of(own, web.url("image/b")) == (
        "robots" if is_ours else b"b"
    )


def test_robots_txt_by_its_standard(web, robots):
    """At least five redirects, also to other hosts (RFC 9309, 2.3.1.2); statuses (2.3.1.3); the longest match (2.2.2)."""
    hops = web.url("to//raw/rules", 1)
    for host in (2, 3, 1):
        hops = web.url(f"to/{hops}", host)
    web.raw["rules"] = OK + b"\r\nUser-agent: *\nDisallow: /image\nAllow: /image/a\nAllow: /image\n", b""
    targets = ((302, hops), (499, ""), (429, ""), (302, "/loop/"))  # `hops` leads to four more redirects
    robots |= dict(zip(web.hosts, targets, strict=True))
    own = fetcher(attempts=1, max_redirects=0)
    assert get(own, web.url("image/a")) == IMAGE and web.asked("raw/rules") == 1
    assert get(own, web.url("image/b")) == b"b"  # of two rules of one length, the one that allows
    assert [outcome_of(own, web.url("image/a", host)) for host in (1, 2, 3)] == [IMAGE[:5], "http_429", IMAGE[:5]]


def test_a_robots_txt_of_any_size(web, robots):
    """A file with many names and many rules, and an endless one."""
    agents = "".join(f"User-agent: a{i:06d}\n" for i in range(15_000))
    robots[web.hosts[0]] = (200, f"{agents}User-agent: Curate/2 # us\n" + "Disallow: /x\n" * 10_000)
    robots[web.hosts[1]] = (302, "/raw/robots")
    web.raw["robots"] = OK + b"\r\nUser-agent: *\nDisallow: /x\n", b"#" * 65_536
    began, own = time.process_time(), fetcher()
    assert get(own, web.url("image/a")) == get(own, web.url("image/a", 1)) == IMAGE
    assert outcome_of(own, web.url("x", 1)) == "robots"
    assert time.process_time() - began < 20


def test_connections_of_a_host(web):
    web.most.clear()
    own = fetcher(per_host=3, robots="ignore")
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(partial(get, own), [web.url("image/a", i % 2) for i in range(60)]))
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


def test_a_name_that_changes_its_address(web, monkeypatch):
    """Public at the first lookup, private later: the address that is connected to is the one that was checked."""
    answers, asked = iter(["93.184.216.34", "127.0.0.1"]), []

    def look_up(*_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), web.port))]

    def connect(sock, address):
        asked.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(addresses, "_SECONDS", 1e-9)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(transport._Socket, "connect", connect)
    url = f"http://rebound.example:{web.port}/image/a"
    reasons = [fault(url, allow_networks=[], attempts=1, robots="ignore")[0] for _ in range(2)]
    assert reasons == ["unreachable", "refused_address"] and asked == ["93.184.216.34"]


def test_lookups_are_cached_and_checked_each_time(web, monkeypatch):
    """Failed ones too, but for a temporary failure; an address is checked against the policy at each use."""
    asked, real = Counter(), socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if not host.endswith(".test"):
            return real(host, *arguments, **options)
        asked[host] += 1
        if host == "none.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host == "again.test" and asked[host] < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    addresses._resolve.cache_clear()
    own, strict = fetcher(robots="ignore", attempts=2), fetcher(robots="ignore", allow_networks=[])
    names = ["some", "some", "none", "none", "again", "again"]
    found = [outcome_of(own, f"http://{name}.test:{web.port}/image/b") for name in names]
    assert found == [b"b", b"b", "dns", "dns", "dns", b"b"] and asked == {
        "some.test": 1,
        "none.test": 1,
        "again.test": 3,
    }
    assert outcome_of(strict, f"http://some.test:{web.port}/image/b") == "refused_address" and asked["some.test"] == 1


def test_a_host_that_never_answers_is_left_alone(web):
    """Its other URLs fail at once with the same reason; later the host may answer again."""
    own, before = fetcher(robots="ignore", attempts=1, per_host=4), len(web.log)
    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(lambda n: own.fetch(web.url(f"silent/{n}", 1), 0.3), range(200)))
    assert {str(outcome.fault) for outcome in outcomes} == {"timeout: no data in time"}
    wait_until(lambda: len(web.log) - before >= 12)  # the server notes requests late on a crowded machine
    assert len(web.log) - before <= 16  # of 200
    assert get(own, web.url("image/a", 2)) == IMAGE
    for _ in range(3):  # a host that answers at times is never left alone
        assert {outcome_of(own, web.url("status/503", 3)) for _ in range(8)} == {"http_503"}
        assert get(own, web.url("image/a", 3)) == IMAGE


def test_failing_hosts_are_remembered_up_to_a_limit(monkeypatch):
    """A host that is left alone outlives those that answer; a pause outlives an answer to another connection."""
    monkeypatch.setattr(fetch, "_HOSTS", 8)
    busy = FetchError("http_429", "429", retry_after=20.0)
    hosts = Hosts(per_host=2)
    for _ in range(fetch._FAILURES):
        with hosts.slot("silent"):
            hosts.failed("silent", FetchError("timeout", "no data in time"), 30.0)
    for number in range(100):
        with hosts.slot(f"host{number}"):
            hosts.answered(f"host{number}")
        assert len(hosts._hosts) <= 8
    with pytest.raises(FetchError, match="timeout"), hosts.slot("silent"):
        pass
    for number in range(100):
        with hosts.slot(f"busy{number}"), hosts.slot(f"busy{number}"):
            hosts.failed(f"busy{number}", busy, 30.0)
            hosts.answered(f"busy{number}")
        assert len(hosts._hosts) <= 8 and hosts._hosts[f"busy{number}"].pause() > 10


MANY = """
import resource, sys, threading
from concurrent.futures import ThreadPoolExecutor
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
from curate.download.fetch import Fetcher
from curate.download.source import NetworkPolicy
policy = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "robots": "ignore", "per_host": 100, "attempts": 1}
own, ready = Fetcher(NetworkPolicy.model_validate(policy)), threading.Barrier(120)
def one(number):
    ready.wait()
    return own.fetch(f"http://127.0.0.{number % 4 + 1}:{sys.argv[1]}/image/b", 10).data
with ThreadPoolExecutor(120) as pool:
    print(set(pool.map(one, range(120))))
"""


def test_more_threads_than_files(web):
    """The threads wait for each other: this machine's limit is not an error of a URL."""
    command = [sys.executable, "-c", MANY, str(web.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout == "{b'b'}\n", done.stderr
