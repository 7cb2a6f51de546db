"""Units on Beam, and what is done with each in one pass over its tables.

Deciding alternates what units do alone with what all of them must be asked first (a threshold, counts, hashes that repeat).
Steps wait until an answer of all units is needed; then one DoFn does those that wait, unit by unit, with the unit's tables
open: each file is opened once and each column read once, and what a step writes the next one reads from memory.

Elements are packets of consecutive units, or of their states: a runner keeps kilobytes of every element of every step, so a run
has only so many, whatever its units.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput

from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.store.error_notes import noting_errors
from pipelines.steps.functions import FlatMap
from pipelines.steps.threads import do_in_threads

_PACKETS = 2048  # of a run at most, where one machine works on it
_PACKETS_OF_MANY = 16384  # where many do
_TOGETHER = 500  # units that Beam creates as one element: of these it keeps ten times the bytes

_SMALL = 1 << 16  # bytes of a packet that is mostly the names and fields of its units, and compressed to a quarter

_PICKLES = beam.coders.PickleCoder()
_PICKLED = b"\x80"  # how a pickle begins, and compressed data does not

Packet = tuple[int, bytes]  # a number, and a pickled list: of units or states in order, or of what else goes together


def pack(number: int, elements: Sequence[Any]) -> Packet:
    """Return the packet of this number, of these units or states."""
    data = _PICKLES.encode(list(elements))
    return number, zlib.compress(data, 1) if len(data) < _SMALL else data


def unpack(packet: Packet) -> list[Any]:
    """Return the units of a packet, or their states."""
    data = packet[1]
    elements: list[Any] = _PICKLES.decode(data if data.startswith(_PICKLED) else zlib.decompress(data))
    return elements


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
        self._found = found if self._combine is None else found | f"{self._name}: all" >> self._combine


class Units:
    """The units of a run on Beam, and the steps that wait; what steps make of units are states, which have a `unit`."""

    def __init__(self, root: beam.Pipeline, plan: Sequence[Unit], context: RunContext) -> None:
        most = _PACKETS if context.is_local_runner else _PACKETS_OF_MANY
        self.per_packet = max(1, -(-len(plan) // most))  # unit i is in packet i // per_packet
        self._context = context
        self._steps: list[_Step] = []
        self._packets = self._create(root, plan)

    def _create(self, root: beam.Pipeline, plan: Sequence[Unit]) -> beam.PCollection[Packet]:
        n = self.per_packet
        units = iter(plan)
        packets = ((number, list(islice(units, n))) for number in range(-(-len(plan) // n)))
        created = []
        while some := list(islice(packets, max(1, _TOGETHER // n))):
            created.append(zlib.compress(_PICKLES.encode(some)))
        unpacked = FlatMap(lambda together: starmap(pack, _PICKLES.decode(zlib.decompress(together))))
        found = root | "Units: create" >> beam.Create(created, reshuffle=False) | "Units: unpack" >> unpacked
        return found if self._context.is_local_runner else found | "Units: spread" >> beam.Reshuffle()

    @property
    def pipeline(self) -> beam.Pipeline:
        """Return the pipeline that they are in."""
        return self._packets.pipeline

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

    def end_pass(self) -> beam.PCollection[Packet]:
        """Do the steps that wait, and return the units or states after them."""
        if steps := self._steps:
            self._steps = []
            name = "; ".join(step.name for step in steps)
            asked = {_tag(i): step.answers for i, step in enumerate(steps) if step.answers is not None}
            side = [one for step in steps for one in step.side]
            in_threads = do_in_threads(_Pass(self._context, tuple(map(_parts, steps))), self.per_packet)
            outputs = self._packets | name >> beam.ParDo(in_threads, *side).with_outputs(*asked, main="packets")
            if any(step.answers is None for step in steps):
                self._packets = outputs["packets"]  # else they stay, and are not kept once more
            for tag, answers in asked.items():
                answers.receive(outputs[tag])
        return self._packets

    def regroup(self, change: Callable[[beam.PCollection[Packet]], beam.PCollection[Packet]]) -> None:
        """End the pass, and go on with what `change` makes of the packets."""
        self._packets = change(self.end_pass())


def _tag(number: int) -> str:
    """Return the name of the output that holds the answers to a step of a pass."""
    return f"answers {number}"


def _parts(step: _Step) -> tuple[Callable[..., Any], int, bool]:
    return step.function, len(step.side), step.answers is not None


@dataclass(frozen=True)
class _Pass:
    """One pass over the units of a packet: steps as function, number of side inputs, and whether it is a question."""

    context: RunContext
    steps: tuple[tuple[Callable[..., Any], int, bool], ...]

    def __call__(self, packet: Packet, *side: Any) -> list[Any]:
        """Return the answers, tagged, then the packet after the steps where one of them gives a next state."""
        outputs: list[Any] = []
        elements = [self._do(element, side, outputs) for element in unpack(packet)]
        if not all(is_question for _, _, is_question in self.steps):
            outputs.append(pack(packet[0], elements))
        return outputs

    def _do(self, element: Any, side: tuple[Any, ...], outputs: list[Any]) -> Any:
        """Return a unit's next state, or the same, and add the answers to the outputs."""
        with noting_errors(self.context.store), self.context.open_tables(getattr(element, "unit", element)) as tables:
            for i, (function, n, is_question) in enumerate(self.steps):
                given, side = side[:n], side[n:]
                result = function(tables, element, *given)
                if is_question:
                    outputs += (TaggedOutput(_tag(i), answer) for answer in result)
                else:
                    element = result
        return element
