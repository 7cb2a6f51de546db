"""Units on Beam, and what is done with each in one pass over its tables.

Deciding alternates what units do alone with what all of them must be asked first (a threshold, counts, hashes that repeat).
Steps wait until an answer of all units is needed; then one DoFn does those that wait, unit by unit, with the unit's tables
open: each file is opened once and each column read once, and what a step writes the next one reads from memory.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from curate.transforms.functions import FlatMap
from curate.transforms.threads import do_in_threads

_TOGETHER = 500  # units of a packet
PICKLES = beam.coders.PickleCoder()  # of units that are grouped: a runner may hold as objects what it groups


def create_units(root: beam.Pipeline, plan: Sequence[Unit], context: RunContext) -> beam.PCollection[Unit]:
    """Return the units of a plan; they travel in packets, since a runner keeps ten times the bytes of what it creates."""
    packets = [zlib.compress(PICKLES.encode(plan[i : i + _TOGETHER])) for i in range(0, len(plan), _TOGETHER)]
    units = root | "Packets" >> beam.Create(packets, reshuffle=False) | "Units" >> FlatMap(_unpack)
    return units if context.is_local_runner else units | beam.Reshuffle()


def _unpack(packet: bytes) -> Iterator[Unit]:
    yield from PICKLES.decode(zlib.decompress(packet))


@dataclass(frozen=True)
class _Step:
    name: str
    function: Callable[..., Any]
    side: tuple[Any, ...]
    answers: "Answers | None" = None  # None: what the function gives is the unit's next state


class Answers:
    """What a question gives, of all units; a PCollection once somebody needs it."""

    def __init__(self, units: "Units", name: str, combine: beam.PTransform | None) -> None:
        self._units, self._name, self._combine = units, name, combine
        self._found: beam.PCollection[Any] | None = None

    def get(self) -> beam.PCollection[Any]:
        """Return them; the steps that were waiting are done in a pass that ends here."""
        if self._found is None:
            self._units.end_pass()
        assert self._found is not None
        return self._found

    def receive(self, found: beam.PCollection[Any]) -> None:
        """Take what the pass gave."""
        self._found = found if self._combine is None else found | f"All {self._name}" >> self._combine


class Units:
    """The units of a run on Beam: elements are units, or their states, which have a `unit`; and the steps that wait."""

    def __init__(self, elements: beam.PCollection[Any], context: RunContext) -> None:
        self._elements, self._context = elements, context
        self._steps: list[_Step] = []

    @property
    def pipeline(self) -> beam.Pipeline:
        """Return the pipeline that they are in."""
        return self._elements.pipeline

    def then(self, name: str, function: Callable[..., Any], *side: Any) -> None:
        """Add a step: `function(tables, element, *side)` returns the element's next state; `side` are side inputs."""
        self._steps.append(_Step(name, function, side))

    def ask(
        self, name: str, function: Callable[..., Iterable[Any]], *side: Any, combine: beam.PTransform | None = None
    ) -> Answers:
        """Add a question: `function(tables, element, *side)` gives answers of a unit, which stays as it is; `combine` is applied to all."""
        answers = Answers(self, name, combine)
        self._steps.append(_Step(name, function, side, answers))
        return answers

    def end_pass(self) -> beam.PCollection[Any]:
        """Do the steps that wait, and return the elements after them."""
        if steps := self._steps:
            self._steps = []
            name = ", ".join(step.name for step in steps)
            asked = {_tag(i): step.answers for i, step in enumerate(steps) if step.answers is not None}
            side = [one for step in steps for one in step.side]
            in_threads = do_in_threads(_Pass(self._context, tuple(map(_parts, steps))))
            outputs = self._elements | name >> beam.ParDo(in_threads, *side).with_outputs(*asked, main="units")
            if any(step.answers is None for step in steps):
                self._elements = outputs["units"]  # else they stay, and are not kept once more
            for tag, answers in asked.items():
                answers.receive(outputs[tag])
        return self._elements

    def regroup(self, change: Callable[[beam.PCollection[Any]], beam.PCollection[Any]]) -> None:
        """End the pass, and take the elements on as what `change` makes of them."""
        self._elements = change(self.end_pass())


def _tag(number: int) -> str:
    """Return the name of the output that holds the answers to a step of a pass."""
    return f"answers {number}"


def _parts(step: _Step) -> tuple[Callable[..., Any], int, bool]:
    return step.function, len(step.side), step.answers is not None


@dataclass(frozen=True)
class _Pass:
    """One pass over a unit: steps as function, number of side inputs, and whether it is a question."""

    context: RunContext
    steps: tuple[tuple[Callable[..., Any], int, bool], ...]

    def __call__(self, element: Any, *side: Any) -> list[Any]:
        return list(self._outputs(element, list(side)))

    def _outputs(self, element: Any, side: list[Any]) -> Iterator[Any]:
        """Yield the answers, tagged, then the element's next state where a step gives one."""
        with noting_errors(self.context.store), self.context.open_tables(getattr(element, "unit", element)) as tables:
            for i, (function, n, is_question) in enumerate(self.steps):
                given, side = side[:n], side[n:]
                result = function(tables, element, *given)
                if is_question:
                    yield from (TaggedOutput(_tag(i), answer) for answer in result)
                else:
                    element = result
            if not all(is_question for _, _, is_question in self.steps):
                yield element
