"""Elements in threads: as many at a time as there are cores, in order, and an error ends them all."""

import threading
import time
from collections.abc import Callable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pvalue import AsList
from apache_beam.testing.util import assert_that, equal_to

from curate.base.process import CORES, in_threads
from pipelines.steps.threads import InThreads

MEETING = threading.Barrier(CORES)
begun: list[int] = []


def meet(number: int) -> int:
    MEETING.wait(60)  # breaks unless CORES threads are here at once
    return number


def fail(number: int) -> int:
    begun.append(number)
    time.sleep(0.1 * number)
    if number == 0:
        raise ValueError("the first fails")
    return number


def in_units(function: Callable[..., Any], *side: Any) -> beam.ParDo:
    """What gives the function's value of each element."""
    return beam.ParDo(InThreads(lambda *arguments: [function(*arguments)]), *side)


def pipeline() -> beam.Pipeline:
    return beam.Pipeline("FnApiRunner")


def test_as_many_at_a_time_as_there_are_cores() -> None:
    with pipeline() as root:
        met = root | beam.Create(range(4 * CORES)) | beam.Reshuffle() | in_units(meet)
        assert_that(met, equal_to(list(range(4 * CORES))))


def test_side_inputs_follow_the_element() -> None:
    with pipeline() as root:
        side = root | "Side" >> beam.Create([1, 2])
        made = root | beam.Create(range(50)) | in_units(lambda n, more, last: (n, sum(more), last), AsList(side), "x")
        assert_that(made, equal_to([(n, 3, "x") for n in range(50)]))


def test_a_unit_may_use_the_threads_of_its_own_work() -> None:
    def work(number: int) -> int:
        return sum(in_threads(lambda n: n + number, range(100)))

    with pipeline() as root:
        sums = root | beam.Create(range(8 * CORES)) | in_units(work) | "Again" >> in_units(work)
        assert_that(sums, equal_to([4950 + 100 * (4950 + 100 * n) for n in range(8 * CORES)]))


def test_an_error_ends_the_bundle_and_what_had_not_begun() -> None:
    begun.clear()
    with pytest.raises(Exception, match="the first fails"), pipeline() as root:
        _ = root | beam.Create(range(100)) | beam.Reshuffle(num_buckets=1) | in_units(fail)
    count = len(begun)
    assert count <= 2 * CORES + 1
    time.sleep(0.3)
    assert len(begun) == count  # nobody works on
