"""Servers misbehave: each URL has its verdict, nothing hangs, curate connects to no other host, memory is flat."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.store.manifest import read_manifest
from curate.store.store import RunStore
from tests.kit import Ran, encode, picture
from tests.kit.memory import read_peak
from tests.kit.web import Web, bomb, running

pytestmark = pytest.mark.slow

pytest.importorskip("img2dataset")

HOSTS, PER_HOST, IMAGES = 64, 4, 60
FEW, MANY = 120, 1000  # URLs
NETWORK = {
    "contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "per_host": PER_HOST, "pause": 0.01,
    "max_seconds": 3, "max_bytes": 2_000_000, "max_pause": 0.3, "attempts": 2,
}  # fmt: skip
# URLs, or paths of any host, and their status: `ok`, or the reason for the failure.
KINDS = {
    "to//image/{n}": "ok", "to/http://127.0.0.9:{port}/image/{n}": "ok", "busy/{n}": "ok", "raw/date": "http_429",
    "image/{n}?a=ü&b=c d#e": "ok",
    "http://127.0.0.62:{port}/image/{n}": "ok",  # whose robots.txt is huge
    "http://[::ffff:127.0.0.8]:{port}/image/{n}": "ok", "http://user:word@127.0.0.5:{port}/image/{n}": "ok",
    "status/404": "http_404", "status/403": "http_403", "status/410": "http_410", "status/500": "http_500",
    "status/503": "http_503", "status/429": "http_429", "status/999": "http_other", "status/304": "http_304",
    "loop/0": "too_many_redirects", "to/http://10.0.0.1/": "refused_address",
    "to/http://169.254.169.254/latest/meta-data": "refused_address", "to/http://[::1]/": "refused_address",
    "to/http://[::ffff:10.0.0.1]/": "refused_address", "to/http://127.0.0.1@192.168.0.1/": "refused_address",
    "to/file:///etc/passwd": "bad_url", "to/gopher://127.0.0.1/": "bad_url", "http://10.0.0.1/{n}": "refused_address",
    "http://2852039166/{n}": "refused_address",  # 169.254.169.254
    "file:///etc/passwd": "bad_url", "data:image/png;base64,AA": "bad_url", "http://nothing{n}.invalid/": "dns",
    "http://127.0.0.7:1/{n}": "unreachable", "https://127.0.0.6:{port}/image/{n}": "tls",
    "text/html": "served_no_image", "raw/gzip": "served_no_image", "raw/empty": "served_no_image",
    "header/X-Robots-Tag=noai": "opted_out", "header/X-Robots-Tag=curate:%20noimageai": "opted_out",
    "header/TDM-Reservation=1": "opted_out", "header/Content-Usage=train-ai=n": "opted_out",
    "forbidden/{n}": "robots",
    "http://127.0.0.61:{port}/image/{n}": "http_500",  # which its robots.txt gives
    "http://127.0.0.63:{port}/image/{n}": "timeout",  # its robots.txt never ends
    "short": "incomplete", "chunk": "incomplete", "reset": "incomplete", "noise": "bad_response",
    "raw/header": "bad_response", "raw/trailers": "too_large", "large": "too_large", "endless": "too_large",
    "slow": "timeout", "slow_header": "timeout", "silent": "timeout", "image/bomb": "too_many_pixels",
    "image/half": "served_no_image",  # found where it is decoded
}  # fmt: skip


def make_web():
    images = {str(i): encode(picture(i, 120)) for i in range(IMAGES)}
    web = Web(images | {"a": images["0"], "bomb": bomb(), "half": images["1"][: len(images["1"]) // 2]}, HOSTS)
    web.robots = dict.fromkeys(web.hosts, (200, "User-agent: *\nDisallow: /forbidden\n"))
    web.robots |= {"127.0.0.61": (500, ""), "127.0.0.62": (302, "/raw/robots"), "127.0.0.63": (302, "/slow")}
    ok = b"HTTP/1.1 200 OK\r\n"
    web.raw = {
        "robots": (ok + b"\r\nUser-agent: *\nDisallow: /x\n", b"#" * 65_536),
        "gzip": (ok + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10_000_000)), b""),
        "empty": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        "header": (ok + b"X: ", b"x" * 65_536),
        "trailers": (ok + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", (b"X: " + b"y" * 1000 + b"\r\n") * 60),
        "date": (b"HTTP/1.1 429 Busy\r\nRetry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n\r\n", b""),
    }
    return web


@dataclass(frozen=True)
class Downloaded:
    """A run over URLs, the expected outcome of each, bytes of memory, and calls that reach a network."""

    run: Ran
    web: Web
    urls: list[str]
    wanted: list[str]
    memory: int
    calls: str | None


def urls_of(web, count):
    """Return URLs in random order, half of them images, half of all kinds in turn, and the status of each."""
    kinds = list(KINDS.items())
    urls, wanted = [], []
    for n in range(count):
        path, reason = kinds[n // 2 % len(kinds)] if n % 2 else ("image/{n}", "ok")
        path = path.format(n=n % IMAGES, port=web.port) + ("" if "?" in path or "//" in path else f"?{n}")
        is_url = re.match(r"[a-z]+:", path)
        urls.append(path if is_url else web.url(path, n // 2 % 60))
        wanted.append(reason)
    order = np.random.default_rng(count).permutation(count)
    return [urls[i] for i in order], [wanted[i] for i in order]


def download(web, folder, count, traced=False):
    urls, wanted = urls_of(web, count)
    command = write_recipe(folder, urls, thread_count=64, timeout=2.5, number_sample_per_shard=max(100, count // 8))
    if traced:
        calls = "trace=connect,sendto,sendmsg,sendmmsg"
        command = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", f"{folder}/calls", *command]
    memory = run(command)
    text = (folder / "calls").read_text(errors="replace") if traced else None
    return Downloaded(Ran(folder / "run"), web, urls, wanted, memory, text)


def write_recipe(folder, urls, network=None, **source):
    """Write a list and a recipe, and return the command that runs it."""
    folder.mkdir(exist_ok=True)
    captions = [f"a picture of number {i}" for i in range(len(urls))]
    pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
    own = {"name": "web", "format": "urls", "path": "list.parquet", "network": NETWORK | (network or {})} | source
    (folder / "recipe.yaml").write_text(json.dumps({"input": own, "max_failed": 1.0}))
    return [sys.executable, "-m", "curate", "run", f"{folder}/recipe.yaml", "--out", f"{folder}/run"]


def run(command):
    """Run a command, and return its peak memory in bytes. It ends, whatever servers do."""
    with tempfile.TemporaryFile() as errors:
        process, memory = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors), 0
        while process.poll() is None:
            memory = max(memory, read_peak(process.pid))
            time.sleep(0.02)
        errors.seek(0)
        assert process.returncode == 0, errors.read().decode()
    return memory


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    with running(make_web()) as web:
        yield download(web, tmp_path_factory.mktemp("web"), FEW, traced=shutil.which("strace") is not None)


def test_every_url_has_its_verdict(downloaded):
    samples = downloaded.run.table("samples")
    found = Counter(zip(samples["url"].to_pylist(), samples["status"].to_pylist(), strict=True))
    assert found == Counter(zip(downloaded.urls, downloaded.wanted, strict=True))
    failures = downloaded.run.table("failures").to_pylist()
    assert {row["reason"] for row in failures} == set(downloaded.wanted) - {"ok"}
    attempts = {row["reason"]: row["attempts"] for row in failures}
    assert attempts["http_500"] == attempts["timeout"] == 2 and attempts["http_404"] == attempts["opted_out"] == 1


def test_each_url_is_one_row_of_a_shard_that_the_manifest_lists(downloaded):
    ran, sidecars = downloaded.run, [pq.read_table(path) for path in (downloaded.run.folder / "pool").glob("*.parquet")]
    assert sorted(url for rows in sidecars for url in rows["url"].to_pylist()) == sorted(downloaded.urls)
    listed = {line.path for line in read_manifest(RunStore(str(ran.folder)))}
    assert {f"pool/{path.name}" for path in (ran.folder / "pool").iterdir()} <= listed


def test_hosts_are_asked_within_their_limits(downloaded):
    web = downloaded.web
    over = {host: most for host, most in web.most.items() if most > PER_HOST * (1 + (host == "127.0.0.8"))}
    assert not over, "of 127.0.0.8 there are two names"
    robots = Counter(host for host, path, _ in web.log if path == "/robots.txt")
    again = [host for host in web.hosts[:60] if robots[host] > 1 + (host == "127.0.0.8")]  # which has two names
    assert len(again) <= 30, "robots.txt is asked for once, but where it was too long in coming"
    asked = Counter(path for _, path, _ in web.log)
    assert not any(path.startswith("/forbidden") for path in asked)
    assert all(headers["user-agent"].startswith("curate/") for _, _, headers in web.log)


def test_nothing_else_is_connected_to(downloaded):
    """No call of any thread reaches a host except those of the web and the resolvers of names."""
    if downloaded.calls is None:
        pytest.skip("strace is not there")
    asked = set(re.findall(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([0-9.]+)"\)', downloaded.calls))
    asked |= set(re.findall(r'sin6_port=htons\((\d+)\).*?inet_pton\(AF_INET6, "([0-9a-f:.]+)"', downloaded.calls))
    path = Path("/etc/resolv.conf")
    text = path.read_text() if path.exists() else ""
    resolvers = {("53", address) for address in re.findall(r"^nameserver\s+(\S+)", text, re.MULTILINE)}
    hosts = {(str(downloaded.web.port), host) for host in downloaded.web.hosts}
    hosts |= {("1", "127.0.0.7"), (str(downloaded.web.port), "::ffff:127.0.0.8")}
    assert asked - resolvers - hosts == set()
    assert len(asked & hosts) > 60


def test_memory_is_flat(tmp_path):
    """Memory does not grow with five times as many URLs. Endless bodies take at most threads times the limit."""
    with running(make_web()) as web:
        few, many = (download(web, tmp_path / f"{count}", count).memory for count in (MANY // 5, MANY))
        assert many < few + 100_000_000, f"{few:,} {many:,}"
        urls = [web.url(f"endless?{i}", i % 60) for i in range(32)]
        most, threads = 20_000_000, 16
        limits = {"max_bytes": most, "max_seconds": 60, "attempts": 1}
        endless = run(write_recipe(tmp_path / "endless", urls, limits, thread_count=threads, timeout=30))
        assert endless < few + 1.25 * threads * most, f"{few:,} {endless:,}"
        assert set(Ran(tmp_path / "endless/run").table("samples")["status"].to_pylist()) == {"too_large"}
