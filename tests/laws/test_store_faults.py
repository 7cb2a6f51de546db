"""A run in an S3 that misbehaves succeeds, or names the file and the reason, and continues when it is run again."""

import time

import fsspec
import pytest

from curate.recipe import clouds
from curate.store import lease
from curate.store.lock import locked
from curate.store.store import RunStore
from curate.store.validity import valid_digest
from tests.kit.llm_server import FaultServer
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.store_faults import FAULTS, PART, SurvivalTests, runs
from tests.kit.store_proxy import Fault, store_proxy
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.thorough, pytest.mark.slow]


@pytest.fixture(scope="module")
def proxy():
    """A proxy before S3; clients time out after a second, and pause only briefly."""
    with serving_s3() as url, store_proxy(url) as proxy, bucket_at(proxy.url), pytest.MonkeyPatch.context() as patch:
        kind = fsspec.get_filesystem_class("s3")
        patch.setattr(kind, "read_timeout", 1.0)
        patch.setattr(clouds, "_LONGEST", 0.05)
        kind.clear_instance_cache()
        yield proxy


@pytest.fixture(scope="module")
def stored(proxy, tmp_path_factory):
    with runs(proxy, "s3://bucket", tmp_path_factory.mktemp("runs")) as made:
        yield made


@pytest.mark.parametrize("name", ["busy", "late"])
def test_a_run_survives(name, stored):
    assert stored.survive(name, FAULTS[name]) == stored.expected


class TestS3(SurvivalTests):
    pass


@pytest.mark.runners  # which CI runs without the slow ones: it waits for minutes
def test_replies_of_a_minute(stored, monkeypatch):
    """The run repeats these requests after 30 s."""
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "read_timeout", clouds.SECONDS)
    assert stored.survive_minutes() == stored.expected


def test_large_files(stored, monkeypatch):
    """s3fs puts them in parts, here of the smallest size."""
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: PART)
    data, found = stored.upload_parts()
    assert found == [data, data] and valid_digest(RunStore(f"{stored.bucket}/parts"), "shards/00000.tar")


def test_captions_survive_cut_connections(proxy, tmp_path):
    """A run survives cut connections, and puts answers, texts, and times into place together, by copies."""
    with FaultServer() as server:
        engines = f"{{llm: {{openai: {{base_url: '{server.base_url}', model: tiny-llm}}}}}}"
        captions = f"captions: {{engines: {engines}, rewrite: {{engine: llm, styles: [human, coco]}}}}"
        with runs(proxy, "s3://bucket", tmp_path, captions) as made:
            assert any(name.startswith("tables/captions/") for name in made.expected)
            assert made.survive("captions", FAULTS["cut"]) == made.expected


def test_a_renewal_that_fails_does_not_end_a_lease(proxy, monkeypatch):
    """The store is busy for a while, but gave the folder to no other command."""
    monkeypatch.setattr(fsspec.get_filesystem_class("s3"), "retries", 1)
    monkeypatch.setattr(lease, "BETWEEN", 0.1)
    store = RunStore("s3://bucket/leased")
    with locked(store, "run") as hold:
        before = len(proxy.faults)
        proxy.rule = lambda _: Fault(status=503)
        wait_until(lambda: len(proxy.faults) >= before + 25)  # one renewal gave up, and the next began
        proxy.rule = None
        since = time.time()
        wait_until(lambda: lease.read_leases(store)[1].renewed >= since)
        with lease.renewing(store, hold.lease):
            pass
    assert lease.read_leases(store) == {}
