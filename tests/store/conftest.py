import uuid

import pytest

from curate.store.store import RunStore


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """An empty folder, on a disk and on a file system that cannot rename."""
    return RunStore(str(tmp_path / "run") if request.param == "local" else f"memory://commit-{uuid.uuid4().hex}")
