"""Functions as steps: they do what Beam's do, and what Beam asks of their methods has the answer that inspecting gives."""

import operator
import types

import apache_beam as beam
import pytest
from apache_beam.pvalue import AsList
from apache_beam.runners.common import MethodWrapper
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.core import get_function_args_defaults
from apache_beam.transforms.userstate import get_dofn_specs

from curate.decide.dedup.exact import HashBatch
from curate.run.units import Fold
from pipelines.steps.functions import CombineAll, FlatMap, InBatches, Map
from pipelines.steps.threads import InThreads

STEPS = {"map": Map(len).fn, "flat": FlatMap(list).fn, "threads": InThreads(list), "batch": InBatches(HashBatch)}


def test_side_inputs_follow_the_element() -> None:
    with beam.Pipeline("FnApiRunner") as root:
        side = root | "Side" >> beam.Create([1, 2])
        numbers = root | beam.Create([3, 4])
        mapped = numbers | Map(lambda n, more, last: (n, sum(more), last), AsList(side), "x")
        assert_that(mapped, equal_to([(3, 3, "x"), (4, 3, "x")]))
        flat = numbers | FlatMap(lambda n, more: [n] * len(more), AsList(side))
        assert_that(flat, equal_to([3, 3, 4, 4]), label="flat")


class Squares(Fold):
    """Sums of squares of parts; wholes are added up."""

    of_wholes = Fold(operator.add)

    def add(self, accumulator: int | None, part: int) -> int:
        return (accumulator or 0) + part**2


@pytest.mark.parametrize("numbers", [[], [3], list(range(1, 200))])
def test_large_wholes_are_combined_some_together(numbers: list[int]) -> None:
    with beam.Pipeline("FnApiRunner") as root:
        parts = root | beam.Create(numbers) | beam.Reshuffle()
        whole = parts | CombineAll(Squares(), Squares.of_wholes)
        assert_that(whole, equal_to([sum(n**2 for n in numbers)] if numbers else []))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_beam_finds_what_it_would_by_inspecting(step: beam.DoFn) -> None:
    names = [name for name in dir(step) if isinstance(getattr(step, name), types.MethodType)]
    assert {"process", "start_bundle", "finish_bundle", "setup", "teardown"} <= set(names)
    for name in names:
        assert hasattr(step, f"_inspect_{name}")
        found = MethodWrapper(step, name)
        assert (found.args, found.defaults) == get_function_args_defaults(getattr(step, name))
    assert get_dofn_specs(step) == (set(), set())
