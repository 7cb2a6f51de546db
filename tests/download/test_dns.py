"""DNS lookups are cached, failed ones too, their addresses are checked each time, and threads may outnumber files."""

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from curate.download import addresses
from curate.download.fetch import Fetcher
from curate.download.source import NetworkPolicy
from tests.kit.web import Web, running


@pytest.fixture(scope="module")
def web():
    with running(Web({"a": b"some bytes"}, 4)) as servers:
        yield servers


@pytest.fixture
def names(monkeypatch):
    """How often names in `.test` are looked up: they have loopback addresses, except `none` and, at first, `again`."""
    asked = Counter()
    real = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if not host.endswith(".test"):
            return real(host, *arguments, **options)
        asked[host] += 1
        if host == "none.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host == "again.test" and asked[host] < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("10.0.0.1" if host == "moves.test" and asked[host] > 1 else "127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    addresses._resolve.cache_clear()
    yield asked


def fetcher(*networks, **limits):
    own = {"contact": "me@example.org", "robots": "ignore", "pause": 0.01, **limits}
    return Fetcher(NetworkPolicy.model_validate(own | {"allow_networks": networks}))


def fetch(by, web, host):
    outcome = by.fetch(f"http://{host}:{web.port}/image/a", 5)
    return outcome.fault.reason if outcome.data is None and outcome.fault else (outcome.data or b"").decode()


def test_a_name_is_looked_up_once(web, names):
    own = fetcher("127.0.0.0/8")
    assert {fetch(own, web, "some.test") for _ in range(20)} == {"some bytes"} and names["some.test"] == 1
    assert fetch(own, web, "none.test") == "dns" and names["none.test"] == 1  # also by further attempts


def test_what_it_means_is_checked_each_time(web, names, monkeypatch):
    assert fetch(fetcher("127.0.0.0/8"), web, "some.test") == "some bytes"
    assert fetch(fetcher(), web, "some.test") == "refused_address" and names["some.test"] == 1
    monkeypatch.setattr(addresses, "_SECONDS", 1e-9)  # a name that means another address the next time
    own = fetcher("127.0.0.0/8")
    assert [fetch(own, web, "moves.test") for _ in range(2)] == ["some bytes", "refused_address"]


def test_what_may_pass_is_asked_again(web, names):
    own = fetcher("127.0.0.0/8", attempts=2, pause=0.01)
    assert fetch(own, web, "again.test") == "dns" and names["again.test"] == 2
    assert fetch(own, web, "again.test") == "some bytes" and names["again.test"] == 3


PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))
from tests.download.test_dns import many
print(many(sys.argv[1]))
"""


def many(port):
    """What 300 threads fetch at once from four loopback addresses."""
    web = Web({})
    web.port = int(port)
    own, ready = fetcher("127.0.0.0/8", per_host=100, attempts=1), threading.Barrier(300)

    def one(number):
        ready.wait()
        return fetch(own, web, f"127.0.0.{number % 4 + 1}")

    with ThreadPoolExecutor(300) as pool:
        return sorted(set(pool.map(one, range(300))))


def test_more_threads_than_files(web):
    """The threads wait for each other: this machine's limit is not an error of a URL."""
    command = [sys.executable, "-c", PROGRAM, str(web.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout == "['some bytes']\n", done.stderr
