"""Implements `curate.run.units` on Beam, and does several steps in one pass over a unit's tables.

Steps are queued until a step needs an answer from all units. Then one DoFn runs the queued steps, unit by unit, with
the unit's tables open: it opens each file once, reads each column once, and passes new tables on in memory.

Elements are packets of consecutive units or of their states. A runner keeps kilobytes for every element of every step,
so the number of packets is limited, regardless of the number of units.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, cached_property, partial
from itertools import chain, islice, product, starmap
from typing import Any, NamedTuple, cast

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton, TaggedOutput

import curate.base.compiling  # noqa: F401
from curate.base.meter import METER
from curate.base.process import in_threads
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.run.units import Answer, Combine, P, Pairs, SideOutput, T_co, ToUnit, Units, W, WorkerLocation, Yields
from curate.store.error_notes import noting_errors
from curate.store.layout import UNITS
from curate.store.lease import renewing
from curate.store.worker_log import logged
from pipelines.steps.functions import CombineAll, ErrorCollector, FlatMap, InThreads, Map
from pipelines.steps.shuffle import SpillingGroupByKey

_PACKETS = 2048  # maximum for a run on one machine
_PACKETS_OF_MANY = 16384  # maximum on a cluster
_IN_GRAPH = 2_000_000  # bytes of units in a cluster's pipeline, which Dataflow limits; more are in files
_TOGETHER = 500  # units in one element of `Create`, for which Beam keeps ten times the bytes
_SMALL = 1 << 16  # bytes; smaller packets are mostly names and fields of units, and compress to a quarter

_PICKLES = beam.coders.PickleCoder()
_PICKLED = b"\x80"  # first byte of a pickle, but not of compressed data
_ASIDE, _PACKET_OUTPUT = "aside", "packets"

# A step of a pass: its stage, function, number of values, and whether it is a question.
_PassStep = tuple[str, Callable[..., Any], int, bool]
Hints = Mapping[str, Mapping[str, Any]]  # Beam's resource hints by prefix of the steps' names
_NO_HINTS: Hints = {}
Packet = tuple[int, bytes]  # a number, and the pickled list of units or states, in order


def pack(number: int, elements: Sequence[Any]) -> Packet:
    """Return the packet with this number and these units or states."""
    data = _PICKLES.encode(list(elements))
    return number, zlib.compress(data, 1) if len(data) < _SMALL else data


def unpack(packet: Packet) -> list[Any]:
    """Return the units or states in a packet."""
    data = packet[1]
    return list(_PICKLES.decode(data if data.startswith(_PICKLED) else zlib.decompress(data)))


class _Collected(Answer[T_co]):
    """An answer as a PCollection, created on demand: one element, or any number of elements for a list."""

    def __init__(self, is_list: bool, make: Callable[[], beam.PCollection[Any]]) -> None:
        self.is_list, self._make = is_list, make
        self.is_side = False  # whether it is a side input of a step

    @cached_property
    def elements(self) -> beam.PCollection[Any]:
        return self._make()

    @property
    def side(self) -> Any:
        self.is_side = True
        return AsList(self.elements) if self.is_list else AsSingleton(self.elements, default_value=None)


class _Keyed(Pairs):
    def __init__(self, items: _Collected[Any], aside: _Collected[Any] | None = None) -> None:
        self.items = self.answer = items
        if aside is not None:
            self.side_output = aside


class _Step(NamedTuple):
    name: str
    stage: str
    function: Callable[..., Any]
    values: tuple[Any, ...]
    answer: list[beam.PCollection[Any]] | None = None  # for the answer; None: the step returns the next state


class BeamUnits(Units):
    """The units of a run on Beam."""

    def __init__(
        self, root: beam.Pipeline, plan: Sequence[Unit], context: RunContext, hints: Hints = _NO_HINTS, spool: str = ""
    ) -> None:
        """`spool` is a folder on this machine for values that are grouped by key; without one, they are in memory.

        Other processes may be in containers, which see only the run folder of this disk.
        """
        self.place = context.place
        is_seen = self.place is WorkerLocation.THIS_PROCESS or (context.store.is_local and not self.place.is_cluster)
        self._hints, self._spool = hints, spool if is_seen else ""
        most = _PACKETS_OF_MANY if self.place.is_cluster else _PACKETS
        self._together = max(1, -(-len(plan) // most))  # units per packet
        self._root, self._context = root, context
        self._steps: list[_Step] = []
        self._computed: list[_Collected[Any]] = []
        self._packets = self._create(plan)

    def _create(self, plan: Sequence[Unit]) -> beam.PCollection[Packet]:
        n, units = self._together, iter(plan)
        packets = ((number, list(islice(units, n))) for number in range(-(-len(plan) // n)))
        created: list[Any] = []
        while several := list(islice(packets, max(1, _TOGETHER // n))):
            created.append(zlib.compress(_PICKLES.encode(several)))
        store = self._context.store
        if self.place.is_cluster and sum(map(len, created)) > _IN_GRAPH:
            names = [f"{UNITS}/{number}" for number in range(len(created))]
            list(in_threads(lambda pair: store.write_bytes(*pair), zip(names, created, strict=True)))
            created = names

        def unpack_all(together: bytes | str) -> Iterator[Packet]:
            data = store.read_bytes(together) if isinstance(together, str) else together
            return starmap(pack, _PICKLES.decode(zlib.decompress(data)))

        unpacked = FlatMap(unpack_all)
        made = self._root | "Units: create" >> beam.Create(created, reshuffle=False) | "Units: unpack" >> unpacked
        return made | "Units: spread" >> beam.Reshuffle() if self.place.is_cluster else made

    def then(self, name: str, function: Callable[..., Any], *values: Any, sent: Pairs | None = None) -> None:
        self._add(_Step(name, self.stage, function, _sides(values)), sent)

    def ask(self, name: str, function: Yields, *values: Any, combine: Combine | None = None) -> Answer[Any]:
        """Queue a question. The pass that it belongs to answers it."""
        answer = self._ask(name, function, values)
        return answer if combine is None else self.combine(name, [answer], combine)

    def _ask(self, name: str, function: Yields, values: Iterable[Any], sent: Pairs | None = None) -> _Collected[Any]:
        outputs: list[beam.PCollection[Any]] = []  # has one element after the pass
        self._add(_Step(name, self.stage, function, _sides(values), outputs), sent)

        def make() -> beam.PCollection[Any]:
            if not outputs:
                self.end_pass()
            return outputs[0]

        return _Collected(True, make)

    def pairs(self, name: str, function: Yields, *values: Any, sent: Pairs | None = None) -> Pairs:
        return _Keyed(self._ask(name, function, values, sent))

    def group(self, name: str, pairs: Pairs, function: Yields, *values: Any) -> Pairs:
        stage, answer = self.stage, cast(_Keyed, pairs).answer

        @cache
        def outputs() -> Any:
            work = partial(_do_key, self._context, stage, function, self._together)
            do = self._hinted(beam.ParDo(InThreads(work), *_sides(values)), name)
            grouped = answer.elements | f"{name}: meet" >> SpillingGroupByKey(stage, self._spool)
            return grouped | name >> do.with_outputs(_ASIDE, main="pairs")

        return _Keyed(_Collected(True, lambda: outputs()["pairs"]), _Collected(True, lambda: outputs()[_ASIDE]))

    def get(self, name: str, function: Callable[..., W], *values: Any, **named: Any) -> Answer[W]:
        """Compute a value from answers. One single-valued answer is the main input, the others are side inputs.

        The main input must not be a side input of earlier steps, because Beam's local runner may then confuse the
        stage that reads it with the stage that writes it.
        """
        stage, others = self.stage, [*values, *named.values()]

        def compute() -> beam.PCollection[Any]:
            answers = ((i, value) for i, value in enumerate(others) if isinstance(value, _Collected))
            main = next((i for i, value in answers if not value.is_list and not value.is_side), None)
            if main is None:
                element = self._root | f"{name}: begin" >> beam.Create([None])
            else:
                element = others.pop(main).elements
            computing = partial(_compute, self._context, stage, function, tuple(named), main)
            return element | name >> Map(computing, *_sides(others))

        self._computed.append(_Collected(False, compute))
        return self._computed[-1]

    def combine(self, name: str, answers: Sequence[Answer[list[P]]], combine: Combine[P, W]) -> Answer[W]:

        def whole() -> beam.PCollection[Any]:
            parts = tuple(answer.elements for answer in answers if isinstance(answer, _Collected))
            together = parts[0] if len(parts) == 1 else parts | name >> beam.Flatten()
            tree = combine.tree if self.place.is_cluster else None
            return together | f"{name}: all" >> self._hinted(CombineAll(combine, tree), name)

        return _Collected(False, whole)

    def each(self, name: str, items: Answer[list[Any]], function: Callable[..., W], *values: Any) -> Answer[list[W]]:
        listed = cast(_Collected[Any], items).elements | f"{name}: items" >> FlatMap(iter)
        if self.place.is_cluster:
            listed |= f"{name}: spread" >> beam.Reshuffle()
        work = partial(_do_item, self._context, self.stage, function)
        done = listed | name >> beam.ParDo(InThreads(work), *_sides(values))
        return _Collected(True, lambda: done)

    def finish(self) -> None:
        """Add the queued steps to the pipeline, and the answers that no step has needed."""
        for answer in self._computed:
            _ = answer.elements
        self.end_pass()

    def end_pass(self) -> beam.PCollection[Packet]:
        """Add the queued steps to the pipeline, and return the units or states after them."""
        if steps := self._steps:
            self._steps = []
            self._do("; ".join(step.name for step in steps), self._packets, steps)
        return self._packets

    def _add(self, step: _Step, sent: Pairs | None) -> None:
        """Queue a step. A step that receives sent values is added at once, with half the steps of `CoGroupByKey`."""
        if sent is None:
            self._steps.append(step)
        else:
            both = (self.end_pass(), cast(_Keyed, sent).answer.elements) | f"{step.name}: both" >> beam.Flatten()
            self._do(step.name, both | f"{step.name}: meet" >> SpillingGroupByKey(step.stage, self._spool), [step])

    def _do(self, name: str, packets: beam.PCollection[Any], steps: Sequence[_Step]) -> None:
        asked = {f"answers {i}": step.answer for i, step in enumerate(steps) if step.answer is not None}
        sides = [value for step in steps for value in step.values]
        parts = tuple((step.stage, step.function, len(step.values), step.answer is not None) for step in steps)
        work = beam.ParDo(InThreads(partial(_do_pass, self._context, parts)), *sides)
        work = self._hinted(work, *(step.name for step in steps))
        outputs = packets | name >> work.with_outputs(*asked, main=_PACKET_OUTPUT)
        if any(step.answer is None for step in steps):
            self._packets = outputs[_PACKET_OUTPUT]  # otherwise the old packets stay, without a copy
        for tag, answer in asked.items():
            answer.append(outputs[tag])

    def _hinted(self, work: Any, *names: str) -> Any:
        """Return the transform for the named steps, with the largest of their resource hints."""
        hints: dict[str, Any] = {}
        for name, (start, of_start) in product(names, self._hints.items()):
            if name.startswith(start):
                hints |= {key: max(value, hints.get(key, value)) for key, value in of_start.items()}
        return work.with_resource_hints(**hints) if hints else work


@contextmanager
def _working(context: RunContext, stage: str = "", unit: Unit | None = None) -> Iterator[None]:
    """Renew the run's lease during the block, and store its log and the error that ends it."""
    title = unit.title if unit else ""
    logging = logged(context.store, title or stage) if context.place.is_cluster else nullcontext()
    with noting_errors(context.store, title), logging, renewing(context.store, context.lease):
        yield


def _sides(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(value.side if isinstance(value, _Collected) else value for value in values)


# Functions of elements are pickled by name. Their first arguments are bound here; the element follows.


def _do_pass(context: RunContext, steps: Sequence[_PassStep], item: tuple[int, Any], *values: Any) -> list[Any]:
    """Return the tagged answers, then the new packet if a step returns next states.

    An item is a packet, or a packet's number with its data and with lists of (unit, value) sent to its units.
    """
    number, data = item
    sent: dict[int, list[Any]] | None = None
    if not isinstance(data, bytes):
        parts, sent = list(data), defaultdict(list)
        [data] = [part for part in parts if isinstance(part, bytes)]
        for index, value in chain.from_iterable(part for part in parts if not isinstance(part, bytes)):
            sent[index].append(value)
    outputs: list[Any] = []
    elements, collector = [], ErrorCollector()
    for element in unpack((number, data)):
        unit, state, rest = getattr(element, "unit", element), element, values
        received = [] if sent is None else [sent[unit.index]]
        with collector.part(), _working(context, unit=unit), context.open_tables(unit) as tables:
            for i, (stage, function, n, is_question) in enumerate(steps):
                of_step, rest = rest[:n], rest[n:]
                with METER.at(stage):
                    result = function(tables, state, *received, *of_step)
                    if is_question:
                        outputs += (TaggedOutput(f"answers {i}", answer) for answer in result)
                    else:
                        state = result
            elements.append(state)
        if collector.is_over:
            break
    if collector.errors:
        raise ExceptionGroup("of units", collector.errors)
    return outputs if all(is_question for *_, is_question in steps) else [*outputs, pack(number, elements)]


def _do_key(
    context: RunContext, stage: str, function: Yields, together: int, item: tuple[Any, Iterable[Any]], *values: Any
) -> list[Any]:
    """Return pairs, values for the units of each packet of `together` units, and side outputs."""
    outputs: list[Any] = []
    sent = defaultdict(list)
    with _working(context, stage), METER.at(stage):
        for part in function(item[0], list(item[1]), *values):
            if isinstance(part, ToUnit):
                sent[part.unit // together].append(tuple(part))
            else:
                outputs.append(TaggedOutput(_ASIDE, part.value) if isinstance(part, SideOutput) else part)
    return [*outputs, *sent.items()]


def _do_item(context: RunContext, stage: str, function: Callable[..., Any], item: Any, *values: Any) -> list[Any]:
    with _working(context, stage), METER.at(stage):
        return [function(item, *values)]


def _compute(
    context: RunContext, stage: str, function: Callable[..., Any], names: Sequence[str], main: int | None, *values: Any
) -> Any:
    """Call the function with answers, the last ones by `names`; Beam's element is argument `main`, or None."""
    element, *arguments = values
    if main is not None:
        arguments.insert(main, element)
    first = len(arguments) - len(names)
    with _working(context, stage), METER.at(stage):
        return function(*arguments[:first], **dict(zip(names, arguments[first:], strict=True)))
