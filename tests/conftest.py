"""What tests share: the folder of real and bad inputs, which lies beside the checkout and may be absent."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast an example is says nothing here: a machine may be busy with other tests.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Take SIGINT as a shell's foreground does, here and in processes started meanwhile.

    A shell's background job ignores it, and hands that down to all that it starts, tests and Python included.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data (photos, captions, metadata, bad inputs)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CURATE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set CURATE_SHARED_DATA")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Of tiny matrices, torch's threads make a hundred times as much work of waiting where cores are shared."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
