"""A run in a Cloud Storage that misbehaves ends right, as one in S3 does."""

import fsspec
import pytest
from fsspec.config import conf
from fsspec.registry import _registry

from curate.recipe import clouds
from tests.kit.store_faults import FAULTS, PART, SurvivalTests, runs
from tests.kit.store_proxy import store_proxy
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


@pytest.mark.parametrize("name", ["none", *FAULTS])
def test_a_run_survives(name, stored):
    assert stored.survive(name, FAULTS.get(name)) == stored.expected


class TestCloudStorage(SurvivalTests):
    pass


def test_large_files(stored, monkeypatch):
    """gcsfs puts them in chunks, here of the size that S3 accepts too."""
    kind = fsspec.get_filesystem_class("gs")
    put = kind._put_file

    async def put_file(self, *words, **named):
        await put(self, *words, chunksize=PART, **named)

    monkeypatch.setattr(kind, "_put_file", put_file)
    data, found = stored.upload_parts()
    assert found == [data, data]


def test_replies_of_a_minute(stored, monkeypatch):
    """They are requested again after 30 s."""
    wait_for_answers(30.0, monkeypatch)
    assert stored.survive_minutes() == stored.expected
