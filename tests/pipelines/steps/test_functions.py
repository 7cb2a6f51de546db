"""Steps made from functions, and elements in threads: one for each core, and if one fails, the others continue."""

import operator
import threading
import time
from functools import partial

import apache_beam as beam
import pytest
from apache_beam.pvalue import AsList
from apache_beam.testing.util import assert_that, equal_to

from curate.base.process import CORES, in_threads
from curate.run.units import Fold
from pipelines.steps.functions import CombineAll, FlatMap, InThreads, Map

MEETING = threading.Barrier(CORES)
begun = []


def test_side_inputs_follow_the_element():
    with beam.Pipeline("FnApiRunner") as root:
        side = root | "Side" >> beam.Create([1, 2])
        numbers = root | beam.Create([3, 4])
        mapped = numbers | Map(lambda n, more, last: (n, sum(more), last), AsList(side), "x")
        assert_that(mapped, equal_to([(3, 3, "x"), (4, 3, "x")]))
        flat = numbers | "Flat" >> FlatMap(lambda n, more: [n] * len(more), AsList(side))
        assert_that(flat, equal_to([3, 3, 4, 4]), label="flat")


class Squares(Fold):
    """Sums of squares of parts; wholes are added up."""

    tree = Fold(operator.add)

    def add(self, accumulator, part):
        return (accumulator or 0) + part**2


@pytest.mark.parametrize("numbers", [[], [3], list(range(1, 200))])
def test_large_wholes_are_combined_some_together(numbers):
    with beam.Pipeline("FnApiRunner") as root:
        parts = root | beam.Create(numbers) | beam.Reshuffle()
        whole = parts | CombineAll(Squares(), Squares.tree)
        assert_that(whole, equal_to([sum(n**2 for n in numbers)] if numbers else []))


def meet(number):
    MEETING.wait(300)  # breaks unless CORES threads are here at once
    return number


def fail(number, failing):
    begun.append(number)
    time.sleep(0.02)
    if number in failing:
        raise ValueError(f"{number} fails")
    return number


def in_units(function):
    """A step that calls the function on each element."""
    return beam.ParDo(InThreads(lambda element: [function(element)]))


def test_as_many_units_at_a_time_as_there_are_cores():
    """And each may use threads for its own work."""

    def work(number):
        return sum(in_threads(lambda n: n + number, range(100)))

    with beam.Pipeline("FnApiRunner") as root:
        met = root | beam.Create(range(4 * CORES)) | beam.Reshuffle() | in_units(meet) | "Work" >> in_units(work)
        assert_that(met, equal_to([4950 + 100 * n for n in range(4 * CORES)]))


def run_failing(failing, match):
    begun.clear()
    with pytest.raises(Exception, match=match), beam.Pipeline("FnApiRunner") as root:
        _ = root | beam.Create(range(100)) | beam.Reshuffle(num_buckets=1) | in_units(partial(fail, failing=failing))


def test_where_some_fail_the_others_go_on():
    run_failing({3, 17}, r"3 fails; .*17 fails")
    assert sorted(begun) == list(range(100))


def test_some_in_a_row_that_fail_end_the_bundle_and_what_had_not_begun():
    run_failing(range(100), "0 fails")
    count = len(begun)
    assert count <= 2 * CORES + 3
    time.sleep(0.3)
    assert len(begun) == count  # no thread continues
