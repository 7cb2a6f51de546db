"""What tests share: the folder of real and bad inputs, which lies beside the checkout and may be absent."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests share the cores: threads of products this small would mostly wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# How fast an example is says nothing here: a machine may be busy with other tests.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file whose tests all have a mark that `-m` excludes, unless it is named: imports alone take seconds."""
    named = {Path(arg.split("::")[0]).resolve() for arg in config.args}
    if collection_path.suffix != ".py" or collection_path in named:
        return None
    marks = re.search(r"^pytestmark = (.*?)\n\n", collection_path.read_text(), re.DOTALL | re.MULTILINE)
    names = re.findall(r"pytest\.mark\.(\w+)", marks[1]) if marks else []
    return any(f"not {name}" in config.option.markexpr for name in names) or None


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
