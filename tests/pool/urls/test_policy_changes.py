"""URLs that one policy refused are retried if a new policy allows them: in the run's folder, by --reuse, or from a store."""

from collections import Counter

import pyarrow.parquet as pq
import pytest

from curate.ask.verify import verify_run
from curate.base.errors import RecipeError
from curate.download.fetch import Fetcher
from curate.download.source import NetworkPolicy
from pipelines.prepare import prepare
from tests.kit import encode, picture, run_local
from tests.kit.url_lists import NETWORK, recipe, write_list
from tests.kit.web import Web, running

pytestmark = pytest.mark.thorough

pytest.importorskip("img2dataset")

URLS = 12
STRICT = {"allow_networks": ["127.0.0.1/32"], "max_bytes": 5000, "max_redirects": 0}
FREE = {"allow_networks": ["127.0.0.1/32", "127.0.0.2/32"], "max_bytes": 1_000_000, "max_redirects": 2, "attempts": 1}


@pytest.fixture(scope="module")
def web():
    images = {str(i): encode(picture(i, 30)) for i in range(URLS)} | {"large": encode(picture(1, 400), quality=100)}
    with running(Web(images, 3)) as servers:
        yield servers


@pytest.fixture(scope="module", autouse=True)
def fresh():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.pool.urls.format._fetcher", lambda source: Fetcher(source.network))
        yield


def write(web, folder):
    urls = [web.url(f"image/{i}") for i in range(5)]
    urls += [web.url("image/5", 1), web.url("image/6", 1), web.url("image/7", 2)]
    urls += [web.url("image/large"), web.url(f"to/{web.url('image/8')}"), web.url("status/404")]
    return write_list(folder / "list.parquet", urls)


def of(path, policy, **source):
    return recipe(path, {"network": NETWORK | policy, "number_sample_per_shard": 4, **source}, max_failed=1.0)


def reasons(ran):
    table = pq.read_table(ran.folder / "failures.parquet")
    return Counter(zip(table["reason"].to_pylist(), table["may_pass"].to_pylist(), strict=True))


@pytest.mark.parametrize("way", ["folder", "reuse", "store"])
def test_what_a_policy_refused_is_asked_again(web, tmp_path, way):
    path = write(web, tmp_path)
    own = {"store": str(tmp_path / "store")} if way == "store" else {}
    first = run_local(of(path, STRICT, **own), tmp_path / "first")
    assert reasons(first) == {
        ("refused_address", False): 3, ("too_large", False): 1, ("too_many_redirects", False): 1,
        ("http_404", False): 1,
    }  # fmt: skip
    assert prepare(of(path, STRICT, **own), str(first.folder), retry=True).finished
    free, folder = of(path, FREE, **own), first.folder
    web.log.clear()
    if way != "folder":
        folder = tmp_path / "second"
        second = run_local(free, folder, reuse=first.folder if way == "reuse" else None)
        assert not web.log and second.counts == first.counts
        may = {reason: count for (reason, passes), count in reasons(second).items() if passes}
        assert may == {"refused_address": 2, "too_large": 1, "too_many_redirects": 1}
    again = run_local(free, folder, retry=True)
    asked = Counter(p for _, p, _ in web.log if p != "/robots.txt")
    assert asked == {f"/image/{name}": 1 for name in (5, 6, 8, "large")} | {f"/to/{web.url('image/8')}": 1}
    assert again.counts == {"failed": 2, "kept": 9}
    assert reasons(again) == {("refused_address", False): 1, ("http_404", False): 1}
    assert prepare(free, str(folder), retry=True).finished and verify_run(str(folder))[1] == []


def test_what_decides_rows_may_not_change_in_a_folder(web, tmp_path):
    path = write(web, tmp_path)
    ran = run_local(of(path, FREE), tmp_path / "run")
    gentle = {"attempts": 5, "pause": 2, "max_pause": 60, "max_seconds": 9, "per_host": 1}
    assert prepare(of(path, FREE | gentle, thread_count=3), str(ran.folder)).finished
    with pytest.raises(RecipeError, match=r"changed: input\.0\.network\.robots\)"):
        prepare(of(path, gentle | {"robots": "ignore"}), str(ran.folder))


NOW_ALLOWED = [  # (reason, detail, what the policy changed, whether it allows the URL now)
    ("refused_address", "127.0.0.1 is loopback", {}, False),
    ("refused_address", "127.0.0.1 is loopback", {"allow_networks": ["127.0.0.0/8"]}, True),
    ("refused_address", "robots.txt: fd00::1 is private", {"allow_networks": ["fd00::/8"]}, True),
    ("refused_address", "10.0.0.1 is private", {"allow_networks": ["127.0.0.0/8"]}, False),
    ("refused_address", "", {}, False), ("http_404", "404 Not Found", {}, False),
    ("too_large", "1,000 bytes", {"max_bytes": 999}, False), ("too_large", "1,000 bytes", {"max_bytes": 1000}, True),
    ("too_large", "more than 1,000 bytes", {"max_bytes": 1000}, False),
    ("too_large", "more than 1,000 bytes", {"max_bytes": 1001}, True),
    ("too_large", "more than 2.0 MB of headers and framing besides its body", {}, False),
    ("too_many_redirects", "more than 5", {}, False), ("too_many_redirects", "more than 5", {"max_redirects": 6}, True),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "detail", "changed", "allowed"), NOW_ALLOWED)
def test_is_allowed_now(reason, detail, changed, allowed):
    assert NetworkPolicy(contact="me@example.org", **changed).allows_now(reason, detail) == allowed
