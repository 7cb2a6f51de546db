"""A run in a Cloud Storage that misbehaves ends right, as one in S3 does."""

import fsspec
import pytest
from fsspec.config import conf
from fsspec.registry import _registry

from curate.recipe import clouds
from tests.kit.store_proxy import store_proxy
from tests.laws.store_faults import FAULTS, FAULTS_OF_PARTS, PART, runs
from tests.runners.dataflow.loopback import BUCKET, open_store, serving_storage, variables

pytestmark = [pytest.mark.runners, pytest.mark.slow]  # Cloud Storage comes with the runners' packages


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    pytest.importorskip("google.cloud.dataflow")
    with serving_storage() as url, store_proxy(url) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in variables(proxy.url).items():
            patch.setenv(name, value)
        patch.setattr("gcsfs.GCSFileSystem", type(open_store()))  # whatever gcsfs was imported for before
        wait_for_answers(1.0, patch)
        with runs(proxy, BUCKET, tmp_path_factory.mktemp("runs")) as made:
            yield made


def wait_for_answers(seconds, patch):
    """Have the file system, whose class is made anew, wait for so long."""
    patch.setattr(clouds, "SECONDS", seconds)
    patch.delattr(clouds, "GCSFileSystem", raising=False)
    for scheme in ("gs", "gcs"):
        patch.delitem(_registry, scheme, raising=False)
    patch.setitem(conf, "gs", {})


@pytest.mark.parametrize(("name", "rule"), [("none", lambda _: None), *FAULTS.items()])
def test_a_run_survives(name, rule, stored):
    stored.survive(name.replace(" ", "-").replace("%", ""), rule)


def test_stale_listings(stored):
    stored.survive_stale_listings()


def test_an_input_that_does_not_come(stored):
    stored.lose_input()


def test_a_store_that_is_down(stored):
    stored.lose_store()


@pytest.mark.parametrize("name", FAULTS_OF_PARTS)
def test_large_files(name, stored, monkeypatch):
    """Which gcsfs puts in chunks, here of the size that S3 takes too."""
    kind = fsspec.get_filesystem_class("gs")
    put = kind._put_file

    async def put_file(self, *words, **named):
        await put(self, *words, chunksize=PART, **named)

    monkeypatch.setattr(kind, "_put_file", put_file)
    stored.upload_parts(f"parts{len(name)}", FAULTS_OF_PARTS[name])


def test_replies_of_a_minute(stored, monkeypatch):
    """Asked again after 30 s."""
    wait_for_answers(30.0, monkeypatch)
    stored.survive_minutes()
