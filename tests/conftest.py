"""What tests share: the folder of real and bad inputs, which lies beside the checkout and may be absent."""

import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests share the cores: threads of products this small would mostly wait for each other. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A library that img2dataset imports would ask the package index for its latest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Bytecode is kept wherever the tests run: else each of some hundred processes compiles all modules again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tests write some thousand small files, and DuckDB waits for the disk at each; so they are written to memory if it has room.
MEMORY = "/dev/shm"
if os.path.isdir(MEMORY) and shutil.disk_usage(MEMORY).free > 8 << 30:
    os.environ.setdefault("TMPDIR", MEMORY)
    tempfile.tempdir = None  # read the variable again
# How fast an example is says nothing here: a machine may be busy with other tests. Each run has the same examples, so that
# no change is refused for what another one did; with --hypothesis-profile=random each run draws others.
quiet = [HealthCheck.too_slow]
settings.register_profile("random", max_examples=40, deadline=None, suppress_health_check=quiet)
settings.register_profile("tests", settings.get_profile("random"), derandomize=True)
settings.load_profile("tests")


def pytest_ignore_collect(collection_path, config):
    """Leave out a file of which `-m` takes no test, unless it is named: imports alone take seconds.

    Either all its tests have a mark that is excluded, or none has the one that is asked for.
    """
    named = {Path(arg.split("::")[0]).resolve() for arg in config.args}
    if not collection_path.match("test_*.py") or collection_path in named:
        return None
    text, asked = collection_path.read_text(), config.option.markexpr
    marks = re.search(r"^pytestmark = (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
    names = re.findall(r"pytest\.mark\.(\w+)", marks[1]) if marks else []
    wanted = re.match(r"\w+(?= and not |$)", asked)
    has_none = wanted is not None and f"pytest.mark.{wanted[0]}" not in text
    return has_none or any(f"not {name}" in asked for name in names) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Search for cycles neither while all is imported, nor ever after in what was: some millions of objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config, log):
    """Give all files that need torch to one worker: it and open_clip take seconds to import."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return _scope(config.rootpath / nodeid.split("::", maxsplit=1)[0])

    return Scheduling(config, log) if config.option.dist == "loadfile" else None


@cache
def _scope(path):
    needs_torch = re.search(
        r"import torch\b|importorskip\(\"torch|open_clip\.|import clips|kit\.clips|kit\.embedded", path.read_text()
    )
    return "torch" if needs_torch else str(path)


@pytest.fixture(scope="session", autouse=True)
def _unfrozen():
    """Keep what a run does at its end from undoing `gc.freeze`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)
        yield


@pytest.fixture
def interruptible():
    """Take SIGINT as a shell's foreground does, here and in processes started meanwhile.

    A shell's background job ignores it, and hands that down to all that it starts, tests and Python included.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def shared():
    """The folder of shared data (photos, captions, metadata, bad inputs)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CURATE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set CURATE_SHARED_DATA")
    return folder
