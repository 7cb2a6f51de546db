"""Six runs give what they gave: every row of every table, and every word of the pages. `python -m tests.golden` rewrites."""

import difflib
from pathlib import Path

import pytest

from tests.golden.cases import CASES
from tests.golden.record import record_case, settle


@pytest.mark.thorough
@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_run_gives_what_it_gave(make, tmp_path):
    stored = Path(__file__).parent / "runs" / make.__name__
    before = {path.name: path.read_text() for path in sorted(stored.iterdir())}
    now = {name: settle(before.get(name, ""), text) for name, text in record_case(make, tmp_path).items()}
    changes = [
        line
        for name in sorted(before | now)
        for line in difflib.unified_diff(
            before.get(name, "").splitlines(), now.get(name, "").splitlines(), name, name, lineterm="", n=1
        )
    ]
    assert not changes, "\n".join(changes[:60])
