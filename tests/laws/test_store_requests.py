"""What a unit costs in requests, where the run folder is an object store."""

import pytest

from tests.store_requests import count_each, sum_kinds

TABLES = 4  # samples, scores, members, decisions

pytestmark = pytest.mark.slow


def test_requests_of_a_unit() -> None:
    """A PUT a table and at most 4 more; at most 20 GET and HEAD; no LIST that grows with units but by its pages."""
    each = count_each()
    text = "\n".join(f"{kind} {name}: {number:.2f}" for (kind, name), number in each.items() if number)
    for table in ("samples", "scores", "members", "decisions"):
        assert each["PUT", f"tables/{table}/N.parquet"] == 1, text
    assert sum_kinds(each, "PUT", "COPY", "PART") <= TABLES + 4, text
    assert sum_kinds(each, "GET", "HEAD") <= 20, text
    assert sum_kinds(each, "LIST", without="-") == 0, text
