import uuid
from pathlib import Path

import pytest

from curate.store.store import RunStore


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunStore:
    """An empty folder, here and on a file system that cannot rename."""
    return RunStore(str(tmp_path / "run") if request.param == "local" else f"memory://commit-{uuid.uuid4().hex}")
