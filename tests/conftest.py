"""What tests share: the folder of real and bad inputs, which lies beside the checkout and may be absent."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data (photos, captions, metadata, bad inputs)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CURATE_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set CURATE_SHARED_DATA")
    return folder
