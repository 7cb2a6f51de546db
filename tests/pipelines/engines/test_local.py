"""The local engine works around faults in Beam."""

import time

import apache_beam as beam
import pytest
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.counters import CounterFactory

from pipelines.engines.choose import choose_engine


class Slow:
    """A number that takes a while to encode."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        time.sleep(0.1)
        return int, (self.number,)


@pytest.mark.slow
def test_threads_of_the_local_runner_lose_no_element():
    """Encoding passes one second, after which Beam itself would send half an element (apache/beam issue 21104)."""
    options = choose_engine(["--direct_num_workers=2", "--direct_running_mode=multi_threading"]).options
    with beam.Pipeline(options=options) as root:
        numbers = root | beam.Create([0, 100]) | beam.FlatMap(lambda first: map(Slow, range(first, first + 13)))
        found = numbers | beam.Reshuffle() | beam.CombineGlobally(sum)
        assert_that(found, equal_to([sum(range(13)) + sum(range(100, 113))]))


def test_a_bundle_ends_with_its_work():
    """The end of a bundle waits for Beam's time sampler."""
    choose_engine([])
    assert StateSampler("stage", CounterFactory()).sampling_period_ms < 10
