"""A run in a Cloud Storage that misbehaves ends right, as one in S3 does."""

from collections.abc import Iterator

import pytest
from fsspec.config import conf
from fsspec.registry import _registry

from curate.recipe import clouds
from tests.laws.store_faults import FAULTS, Runs, runs
from tests.runners.dataflow.loopback import BUCKET, open_store, serving_storage, variables
from tests.store_proxy import Rule, store_proxy

pytestmark = [pytest.mark.runners, pytest.mark.slow]  # Cloud Storage comes with the runners' packages


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    pytest.importorskip("google.cloud.dataflow")
    with serving_storage() as url, store_proxy(url) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in variables(proxy.url).items():
            patch.setenv(name, value)
        patch.setattr("gcsfs.GCSFileSystem", type(open_store()))  # whatever gcsfs was imported for before
        patch.setattr(clouds, "SECONDS", 1.0)
        patch.delattr(clouds, "GCSFileSystem", raising=False)  # which is made anew
        for scheme in ("gs", "gcs"):
            patch.delitem(_registry, scheme, raising=False)
        patch.setitem(conf, "gs", {})
        with runs(proxy, BUCKET, tmp_path_factory.mktemp("runs")) as made:
            yield made


@pytest.mark.parametrize(("name", "rule"), [("none", lambda _: None), *FAULTS.items()])
def test_a_run_survives(name: str, rule: Rule, stored: Runs) -> None:
    print(f"\n{name}: {stored.survive(name.replace(' ', '-').replace('%', ''), rule)}")


def test_stale_listings(stored: Runs) -> None:
    print(f"\nstale: {stored.survive_stale_listings()}")


def test_an_input_that_does_not_come(stored: Runs) -> None:
    print(f"\naway: {stored.lose_input()}")
