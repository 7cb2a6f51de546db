"""A run in an S3 that misbehaves ends right, or says which file failed and why, and goes on when it is run again."""

import time

import fsspec
import pytest

from curate.recipe import clouds
from curate.store import lease
from curate.store.lock import locked
from curate.store.store import RunStore
from tests.kit.llm_server import FaultServer
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.store_proxy import Fault, store_proxy
from tests.kit.waiting import wait_until
from tests.laws.store_faults import FAULTS, FAULTS_OF_PARTS, PART, runs

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def proxy():
    with serving_s3() as url, store_proxy(url) as proxy, bucket_at(proxy.url), pytest.MonkeyPatch.context() as patch:
        kind = fsspec.get_filesystem_class("s3")
        patch.setattr(kind, "read_timeout", 1.0)
        kind.clear_instance_cache()
        yield proxy


@pytest.fixture(scope="module")
def stored(proxy, tmp_path_factory):
    with runs(proxy, "s3://bucket", tmp_path_factory.mktemp("runs")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_run_survives(name, stored):
    stored.survive(name.replace(" ", "-").replace("%", ""), FAULTS[name])
    assert len(stored.published(name.replace(" ", "-").replace("%", ""))) > 10


@pytest.mark.slow
def test_without_faults(stored):
    stored.survive("none", lambda _: None)


@pytest.mark.slow
def test_stale_listings(stored):
    stored.survive_stale_listings()


@pytest.mark.slow
def test_an_input_that_does_not_come(stored):
    stored.lose_input()


@pytest.mark.slow
@pytest.mark.runners  # which CI runs without the slow ones: it waits for minutes
def test_replies_of_a_minute(stored, monkeypatch):
    """Asked again after 30 s."""
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "read_timeout", clouds.SECONDS)
    stored.survive_minutes()


@pytest.mark.slow
def test_a_store_that_is_down(stored):
    stored.lose_store()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS_OF_PARTS)
def test_large_files(name, stored, monkeypatch):
    """Which s3fs puts in parts, here of the smallest size."""
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: PART)
    stored.upload_parts(f"parts{len(name)}", FAULTS_OF_PARTS[name])


@pytest.mark.slow
def test_captions(proxy, tmp_path):
    """Answers, texts and what they took are put into place together, by copies."""
    with FaultServer() as server:
        engines = f"{{llm: {{openai: {{base_url: '{server.base_url}', model: tiny-llm}}}}}}"
        captions = f"captions: {{engines: {engines}, rewrite: {{engine: llm, styles: [human, coco]}}}}"
        with runs(proxy, "s3://bucket", tmp_path, captions) as made:
            made.survive("captions", FAULTS["answers that are lost"])
            assert any(name.startswith("tables/captions/") for name in made.published("captions"))


@pytest.mark.slow
def test_a_renewal_that_fails_does_not_end_a_lease(proxy, monkeypatch):
    """A store that is busy for a while has not given the folder to another."""
    monkeypatch.setattr(clouds, "_ATTEMPTS", 0)
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    monkeypatch.setattr(lease, "BETWEEN", 0.1)
    store = RunStore("s3://bucket/leased")
    with locked(store, "run") as hold:
        before = len(proxy.faults)
        proxy.rule = lambda _: Fault(status=503)
        wait_until(lambda: len(proxy.faults) >= before + 6)  # one renewal gave up, and the next began
        proxy.rule = None
        since = time.time()
        wait_until(lambda: lease.read_leases(store)[1].renewed >= since)
        with lease.renewing(store, hold.lease):
            pass
    assert lease.read_leases(store) == {}
