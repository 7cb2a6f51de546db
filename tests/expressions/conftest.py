"""What the tests of expressions share."""

import pytest

from tests.expressions.tables import SECRET


@pytest.fixture
def secret(tmp_path):
    """A file that no rule may read, and its folder, in which none may write."""
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return str(path), str(tmp_path)
