"""What tests of engines share."""

import os
from pathlib import Path

import pytest

from tests.runners.clusters import Cluster, standalone

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def checkout_first():
    """Executors import DoFns of these tests by name, and a package of others may install a `tests` of its own."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="session")
def cluster(checkout_first, tmp_path_factory):
    """A cluster of two workers, of one core each: one run after the other may take it."""
    folder = tmp_path_factory.mktemp("cluster")
    with standalone(folder) as url:
        yield Cluster(folder, url)
