"""Grouping by key: each key gets all its values. Large values are in files, so the runner holds only their names."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
from apache_beam.testing.util import assert_that, equal_to

from pipelines.steps import shuffle
from pipelines.steps.functions import FlatMap, Map
from pipelines.steps.shuffle import SpillingGroupByKey

KEYS, VALUES, LENGTH = 5, 20, 4000


def values_of(first):
    """Return large values and small ones of each key."""
    for key in range(KEYS):
        yield key, (first, np.full(LENGTH, first, np.uint64))
        yield key, (-1 - first, np.zeros(0, np.uint64))


def firsts(item):
    """Return the key, and which values are intact."""
    return item[0], sorted(first for first, numbers in item[1] if (numbers == first).all())


def met(folder):
    """Group values, and check that each key has all its values."""
    with beam.Pipeline("FnApiRunner") as root:
        pairs = root | beam.Create(range(VALUES), reshuffle=False) | FlatMap(values_of)
        grouped = pairs | SpillingGroupByKey("decide", folder) | "Map" >> Map(firsts)
        assert_that(grouped, equal_to([(key, list(range(-VALUES, VALUES))) for key in range(KEYS)]))


@pytest.mark.parametrize("waiting", [1, 3 * 8 * LENGTH, 1 << 25])
@pytest.mark.parametrize("spooled", [False, True])
def test_all_values_of_a_key_meet(tmp_path, monkeypatch, spooled, waiting):
    monkeypatch.setattr(shuffle, "_WAITING", waiting)
    met(str(tmp_path) if spooled else "")
    assert not list(tmp_path.iterdir())


def test_the_runner_holds_names_of_files(tmp_path, monkeypatch):
    """One name for each key, however often values were written to files."""
    held = []
    append = GroupingBuffer.append
    monkeypatch.setattr(GroupingBuffer, "append", lambda self, data: (held.append(len(data)), append(self, data)))
    met("")
    assert sum(held) > 8 * KEYS * VALUES * LENGTH
    held.clear()
    monkeypatch.setattr(shuffle, "_WAITING", 8 * KEYS * LENGTH)
    met(str(tmp_path))
    assert held[0] < 100 * KEYS  # the other is of the check
