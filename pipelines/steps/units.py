"""Units on Beam, and what is done with each in one pass over its tables: see `curate.run.units`.

Steps wait until an answer of all units is needed; then one DoFn does those that wait, unit by unit, with the unit's
tables open: each file is opened once and each column read once, and what a step writes the next one reads from memory.

Elements are packets of consecutive units, or of their states: a runner keeps kilobytes of every element of every step,
so a run has only so many, whatever its units.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, starmap
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton, TaggedOutput

from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import Answer, Aside, Batch, Combine, Pairs, Units
from curate.store.error_notes import noting_errors
from pipelines.steps.combine import CombineAll
from pipelines.steps.functions import FlatMap, InBatches, Map
from pipelines.steps.threads import do_in_threads

_PACKETS = 2048  # of a run at most, where it is no cluster that works on it
_PACKETS_OF_MANY = 16384  # where it is one
_TOGETHER = 500  # units that Beam creates as one element: of these it keeps ten times the bytes

_SMALL = 1 << 16  # bytes of a packet that is mostly the names and fields of its units, and compressed to a quarter

_PICKLES = beam.coders.PickleCoder()
_PICKLED = b"\x80"  # how a pickle begins, and compressed data does not
_ASIDE, _PACKET_OUTPUT = "aside", "packets"

Packet = tuple[int, bytes]  # a number, and a pickled list of units or states in order


def pack(number: int, elements: Sequence[Any]) -> Packet:
    """Return the packet of this number, of these units or states."""
    data = _PICKLES.encode(list(elements))
    return number, zlib.compress(data, 1) if len(data) < _SMALL else data


def unpack(packet: Packet) -> list[Any]:
    """Return the units of a packet, or their states."""
    data = packet[1]
    elements: list[Any] = _PICKLES.decode(data if data.startswith(_PICKLED) else zlib.decompress(data))
    return elements


class _Collected(Answer):
    """An answer as a PCollection: of one element, or of any number where it is a list.

    It is made once somebody needs it.
    """

    def __init__(self, is_list: bool, make: Callable[[], beam.PCollection[Any]]) -> None:
        self.is_list, self._make = is_list, make

    @cached_property
    def elements(self) -> beam.PCollection[Any]:
        return self._make()

    @property
    def side(self) -> Any:
        """The answer as a side input."""
        return AsList(self.elements) if self.is_list else AsSingleton(self.elements)


class _Keyed(Pairs):
    def __init__(self, items: _Collected, aside: _Collected | None = None) -> None:
        self.items = self.answer = items
        if aside is not None:
            self.aside = aside


@dataclass(frozen=True)
class _Step:
    name: str
    function: Callable[..., Any]
    values: tuple[Any, ...]
    answer: list[beam.PCollection[Any]] | None = None  # where it is put; None: the function gives the unit's next state


class BeamUnits(Units):
    """The units of a run on Beam."""

    def __init__(self, root: beam.Pipeline, plan: Sequence[Unit], context: RunContext) -> None:
        self.place = context.place
        most = _PACKETS_OF_MANY if self.place.is_cluster else _PACKETS
        self.together = max(1, -(-len(plan) // most))
        self._root, self._context = root, context
        self._steps: list[_Step] = []
        self._packets = self._create(plan)

    def _create(self, plan: Sequence[Unit]) -> beam.PCollection[Packet]:
        n, units = self.together, iter(plan)
        packets = ((number, list(islice(units, n))) for number in range(-(-len(plan) // n)))
        created = []
        while some := list(islice(packets, max(1, _TOGETHER // n))):
            created.append(zlib.compress(_PICKLES.encode(some)))
        unpacked = FlatMap(lambda together: starmap(pack, _PICKLES.decode(zlib.decompress(together))))
        made = self._root | "Units: create" >> beam.Create(created, reshuffle=False) | "Units: unpack" >> unpacked
        return made | "Units: spread" >> beam.Reshuffle() if self.place.is_cluster else made

    def then(self, name: str, function: Callable[..., Any], *values: Any, sent: Pairs | None = None) -> None:
        """Add a step that gives units their next state."""
        if sent is None:
            self._steps.append(_Step(name, function, _sides(values)))
        else:
            self._packets = self._receive(name, function, values, sent, gives_state=True)

    def ask(
        self, name: str, function: Callable[..., Iterable[Any]], *values: Any, combine: Combine[Any, Any] | None = None
    ) -> Answer:
        """Add a question, which is answered by the pass that it is of."""
        answer = self._ask(name, function, values)
        return answer if combine is None else self.combine(name, [answer], combine)

    def _ask(self, name: str, function: Callable[..., Iterable[Any]], values: Iterable[Any]) -> _Collected:
        outputs: list[beam.PCollection[Any]] = []  # one, once the pass has ended
        step = _Step(name, function, _sides(values), outputs)
        self._steps.append(step)

        def make() -> beam.PCollection[Any]:
            if not outputs:
                self.end_pass()
            return outputs[0]

        return _Collected(True, make)

    def pairs(
        self,
        name: str,
        function: Callable[..., Iterable[tuple[Any, Any]]],
        *values: Any,
        sent: Pairs | None = None,
        batch: Callable[[], Batch] | None = None,
    ) -> Pairs:
        """Add a question whose parts have keys."""
        if sent is None:
            asked = self._ask(name, function, values)
        else:
            received = self._receive(name, function, values, sent, gives_state=False)
            asked = _Collected(True, lambda: received)
        if batch is None:
            return _Keyed(asked)
        return _Keyed(_Collected(True, lambda: asked.elements | f"{name}: batch" >> beam.ParDo(InBatches(batch))))

    def group(self, name: str, pairs: Pairs, function: Callable[..., Iterable[Any]], *values: Any) -> Pairs:
        """Bring the values of each key together."""
        assert isinstance(pairs, _Keyed)

        @cache
        def outputs() -> Any:
            work = beam.ParDo(do_in_threads(_OfKey(self._context, function)), *_sides(values))
            grouped = pairs.answer.elements | f"{name}: meet" >> beam.GroupByKey()
            return grouped | name >> work.with_outputs(_ASIDE, main="pairs")

        return _Keyed(_Collected(True, lambda: outputs()["pairs"]), _Collected(True, lambda: outputs()[_ASIDE]))

    def get(self, name: str, function: Callable[..., Any], *values: Any) -> Answer:
        """Compute what follows from answers: for one of them that is a single value, with the others beside it."""
        single = (i for i, value in enumerate(values) if isinstance(value, _Collected) and not value.is_list)
        place = next(single, None)
        main = self._root | f"{name}: begin" >> beam.Create([None]) if place is None else values[place].elements
        others = _sides(value for i, value in enumerate(values) if i != place)
        computed = main | name >> Map(_Computing(self._context, function, place), *others)
        return _Collected(False, lambda: computed)

    def combine(self, name: str, answers: Sequence[Answer], combine: Combine[Any, Any] | None = None) -> Answer:
        """Combine lists as they come."""

        @cache
        def together() -> beam.PCollection[Any]:
            parts = [answer.elements for answer in answers if isinstance(answer, _Collected)]
            return parts[0] if len(parts) == 1 else tuple(parts) | name >> beam.Flatten()

        if combine is None:
            return _Collected(True, together)
        return _Collected(False, lambda: together() | f"{name}: all" >> CombineAll(combine))

    def each(self, name: str, items: Answer, function: Callable[..., Any], *values: Any) -> Answer:
        """Work on the items of an answer."""
        assert isinstance(items, _Collected)
        listed = items.elements | f"{name}: items" >> FlatMap(_items)
        if self.place.is_cluster:
            listed |= f"{name}: spread" >> beam.Reshuffle()
        done = listed | name >> beam.ParDo(do_in_threads(_OfItem(self._context, function)), *_sides(values))
        return _Collected(True, lambda: done)

    def end_pass(self) -> beam.PCollection[Packet]:
        """Do the steps that wait, and return the units or states after them."""
        if steps := self._steps:
            self._steps = []
            name = "; ".join(step.name for step in steps)
            asked = {_tag(i): step.answer for i, step in enumerate(steps) if step.answer is not None}
            sides = [value for step in steps for value in step.values]
            parts = tuple((step.function, len(step.values), step.answer is not None) for step in steps)
            in_threads = do_in_threads(_Pass(self._context, parts), self.together)
            outputs = self._packets | name >> beam.ParDo(in_threads, *sides).with_outputs(*asked, main=_PACKET_OUTPUT)
            if any(step.answer is None for step in steps):
                self._packets = outputs[_PACKET_OUTPUT]  # else they stay, and are not kept once more
            for tag, answer in asked.items():
                answer.append(outputs[tag])
        return self._packets

    def _receive(
        self, name: str, function: Callable[..., Any], values: Iterable[Any], sent: Pairs, gives_state: bool
    ) -> beam.PCollection[Any]:
        """Bring packets and what is sent to their units together, at half the steps of `CoGroupByKey`."""
        assert isinstance(sent, _Keyed)
        sides, packets = _sides(values), self.end_pass()
        both = (packets, sent.answer.elements) | f"{name}: both" >> beam.Flatten()
        work = do_in_threads(_Receiving(self._context, function, gives_state), self.together)
        return both | f"{name}: meet" >> beam.GroupByKey() | name >> beam.ParDo(work, *sides)


def _sides(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value.side if isinstance(value, _Collected) else value for value in values)


def _items(values: Iterable[Any]) -> Iterable[Any]:
    return values


def _tag(number: int) -> str:
    """Return the name of the output that holds the answers to a step of a pass."""
    return f"answers {number}"


@dataclass(frozen=True)
class _Pass:
    """One pass over the units of a packet: steps as function, number of values, and whether it is a question."""

    context: RunContext
    steps: tuple[tuple[Callable[..., Any], int, bool], ...]

    def __call__(self, packet: Packet, *values: Any) -> list[Any]:
        """Return the answers, tagged, then the packet after the steps where one of them gives a next state."""
        outputs: list[Any] = []
        elements = [self._do(element, values, outputs) for element in unpack(packet)]
        if not all(is_question for _, _, is_question in self.steps):
            outputs.append(pack(packet[0], elements))
        return outputs

    def _do(self, element: Any, values: tuple[Any, ...], outputs: list[Any]) -> Any:
        """Return a unit's next state, or the same, and add the answers to the outputs."""
        with noting_errors(self.context.store), self.context.open_tables(getattr(element, "unit", element)) as tables:
            for i, (function, n, is_question) in enumerate(self.steps):
                of_step, values = values[:n], values[n:]
                result = function(tables, element, *of_step)
                if is_question:
                    outputs += (TaggedOutput(_tag(i), answer) for answer in result)
                else:
                    element = result
        return element


@dataclass(frozen=True)
class _Receiving:
    """A step with what was sent to the units of a packet."""

    context: RunContext
    function: Callable[..., Any]
    gives_state: bool

    def __call__(self, item: tuple[int, Iterable[Any]], *values: Any) -> list[Any]:
        """Return the packet of the next states, or what the function yields for each unit."""
        both = list(item[1])
        [packet] = [value for value in both if isinstance(value, bytes)]
        sent = [value for value in both if not isinstance(value, bytes)]
        results = [self._do(element, sent, values) for element in unpack((item[0], packet))]
        return [pack(item[0], results)] if self.gives_state else [pair for pairs in results for pair in pairs]

    def _do(self, element: Any, sent: list[Any], values: tuple[Any, ...]) -> Any:
        with noting_errors(self.context.store), self.context.open_tables(getattr(element, "unit", element)) as tables:
            result = self.function(tables, element, sent, *values)
            return result if self.gives_state else list(result)


@dataclass(frozen=True)
class _OfKey:
    """Work on the values of a key."""

    context: RunContext
    function: Callable[..., Iterable[Any]]

    def __call__(self, item: tuple[Any, Iterable[Any]], *values: Any) -> list[Any]:
        """Return pairs, and asides as the other output."""
        with noting_errors(self.context.store):
            return [_output(part) for part in self.function(item[0], list(item[1]), *values)]


def _output(part: Any) -> Any:
    return TaggedOutput(_ASIDE, part.value) if isinstance(part, Aside) else part


@dataclass(frozen=True)
class _OfItem:
    """Work on an item."""

    context: RunContext
    function: Callable[..., Any]

    def __call__(self, item: Any, *values: Any) -> list[Any]:
        """Return what the function gives."""
        with noting_errors(self.context.store):
            return [self.function(item, *values)]


@dataclass(frozen=True)
class _Computing:
    """What follows from answers, of which one is Beam's element."""

    context: RunContext
    function: Callable[..., Any]
    place: int | None  # of the element among the values; None where it is none of them

    def __call__(self, element: Any, *others: Any) -> Any:
        """Return the function's value."""
        values: Iterator[Any] = iter(others)
        count = len(others) + (self.place is not None)
        with noting_errors(self.context.store):
            return self.function(*(element if i == self.place else next(values) for i in range(count)))
