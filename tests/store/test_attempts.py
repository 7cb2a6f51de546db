"""Attempts at a unit: curate counts those that did not end."""

import pytest

from curate.store.attempts import MAX_ATTEMPTS, attempt, reset_attempts
from curate.store.store import RunStore


def test_attempts_that_did_not_end_are_counted(tmp_path):
    """An attempt that ends leaves nothing; one that succeeds clears the markers of others."""
    store, marks = RunStore(str(tmp_path)), tmp_path / "parts/attempts/00007"
    with attempt(store, "00007") as killed:
        assert killed == 0 and [mark.name for mark in marks.iterdir()] == ["0"]
        with attempt(store, "00007") as beside:  # another at the same moment
            assert beside == 1
        with attempt(store, "00008") as of_another:
            assert of_another == 0
    assert not marks.exists() or not list(marks.iterdir())
    for number in range(MAX_ATTEMPTS + 1):  # as if killed
        with pytest.raises(ZeroDivisionError), attempt(store, "00007") as killed:
            assert killed == min(number, MAX_ATTEMPTS)
            raise ZeroDivisionError
        marks.mkdir(parents=True, exist_ok=True)
        (marks / f"{min(number, MAX_ATTEMPTS - 1)}").touch()
    with attempt(store, "00007") as killed:
        assert killed == MAX_ATTEMPTS
    assert not marks.exists()


def test_attempts_that_got_on_count_as_one(tmp_path):
    """Preempted machines that made progress count as one; a suspected unit stays suspected, and is never given up."""
    store, marks = RunStore(str(tmp_path)), tmp_path / "parts/attempts/00007"
    for before, after in ((0, 1), (1, 1), (2, 1), (3, 3), (5, 3), (6, 3)):
        for number in range(before):
            store.write_bytes(f"parts/attempts/00007/{number}", b"")
        with attempt(store, "00007") as killed:
            assert killed == before
            reset_attempts(store, "00007", killed)
            assert len(list(marks.iterdir())) == after
