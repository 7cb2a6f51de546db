"""Functions of elements as steps of Beam, as `beam.Map` and `beam.FlatMap` are, at half the cost; also in threads.

Beam asks each method of a DoFn, ten times a step, whether it wants state, timers or windows, by inspecting its
signature, and infers what a function returns from its bytecode. None of ours wants any, and all give objects that are
pickled. What Beam's own want is inspected once a class.

A worker of Beam takes one element after another, and a unit may not be work for all cores. Beam's local runner can have
several workers in one process, but then now and then reads an element from a wrong place
(github.com/apache/beam/issues/21104). So it has one, and the steps that are worth it have threads.
"""

import time
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from typing import Any
from weakref import WeakKeyDictionary

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms import userstate
from apache_beam.transforms.core import get_function_args_defaults
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from curate.base.foreign import naming_packages
from curate.base.process import CORES, threads
from curate.run.units import Combine
from curate.store.error_notes import join_errors
from curate.store.timings import write_records

_WHOLES = 32  # large results that one worker holds, of those that thousands of bundles give
_IN_A_ROW = 3  # parts that fail, until others are not tried
_SHORT = 0.01  # seconds
_LONG = 0.1  # as good as any longer
_WEIGHT = 0.2  # of the latest element in the average


_Specs = tuple[set[userstate.StateSpec], set[userstate.TimerSpec]]
_inspect: Callable[[beam.DoFn], _Specs] = userstate.get_dofn_specs
_INSPECTED: WeakKeyDictionary[type, dict[frozenset[str], _Specs]] = WeakKeyDictionary()


def _get_dofn_specs(dofn: beam.DoFn) -> _Specs:
    """Return what Beam's own `get_dofn_specs` does: a DoFn's state and timers, which are those of its class."""
    values = vars(dofn)
    if any(isinstance(value, types.MethodType) for value in values.values()):  # which may be its `process`
        return _inspect(dofn)
    known = _INSPECTED.setdefault(type(dofn), {})
    names = frozenset(values)  # they hide methods of the class
    if names not in known:
        known[names] = _inspect(dofn)
    states, timers = known[names]
    return set(states), set(timers)


userstate.get_dofn_specs = _get_dofn_specs


class PlainDoFn(beam.DoFn):
    """A DoFn that wants neither state nor timers nor windows: what Beam asks of its methods is answered once, for the
    class.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in dir(cls):
            method = getattr(cls, name)
            if isinstance(method, types.FunctionType | types.MethodType):
                bound = types.MethodType(method, cls) if isinstance(method, types.FunctionType) else method
                answer = get_function_args_defaults(bound)
                setattr(cls, f"_inspect_{name}", staticmethod(lambda answer=answer: answer))  # which Beam asks first


class _Each(PlainDoFn):
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def process(self, element: Any, *side: Any) -> Iterable[Any]:
        with naming_packages():
            return (self._function(element, *side),)


class _All(_Each):
    def process(self, element: Any, *side: Any) -> Iterable[Any]:
        with naming_packages():
            yield from self._function(element, *side)


def Map(function: Callable[..., Any], *side: Any) -> beam.ParDo:
    """PCollection[X] → PCollection[Y], where the function gives a Y for an X.

    `side` are side inputs, or what comes after the element.
    """
    return beam.ParDo(_Each(function), *side)


def FlatMap(function: Callable[..., Iterable[Any]], *side: Any) -> beam.ParDo:
    """PCollection[X] → PCollection[Y], where the function gives some Ys for an X."""
    return beam.ParDo(_All(function), *side)


def in_window(output: Any) -> Any:
    """Return what a DoFn yields at the end of a bundle, for an output."""
    if isinstance(output, TaggedOutput):
        return TaggedOutput(output.tag, in_window(output.value))
    return WindowedValue(output, GlobalWindow().max_timestamp(), [GlobalWindow()])


class CombineAll(beam.PTransform):
    """Combine all elements as they come, so that a worker holds one result and not the parts; of none, nothing.

    As Beam's own, of steps that start faster; a default for none would cost a stage. With `tree`, which combines
    wholes, some workers first combine what bundles gave: one would hold that of thousands.
    """

    def __init__(self, combine: Combine[Any, Any], tree: Combine[Any, Any] | None = None) -> None:
        super().__init__()
        self._combine, self._tree = combine, tree

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[Any]:
        """PCollection[part] → PCollection of one whole."""
        keys = _WHOLES if self._tree else 1
        key = Map(lambda element: (_process() % keys, element)).with_output_types(tuple[int, Any])
        combined = elements | "Key" >> key | "Combine" >> beam.CombinePerKey(_CombineFn(self._combine))
        whole = combined | "Value" >> Map(itemgetter(1))
        return whole | "Wholes" >> CombineAll(self._tree) if self._tree else whole


@cache
def _process() -> int:
    return uuid.uuid4().int


class _CombineFn(beam.CombineFn):
    def __init__(self, combine: Combine[Any, Any]) -> None:
        self.create_accumulator, self.add_input = combine.create, combine.add
        self.merge_accumulators, self.extract_output = combine.merge, combine.result


class GoingOn:
    """Work whose parts go on where some fail.

    Attributes:
        errors: those of the parts that failed.
    """

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._in_a_row = 0

    @property
    def is_over(self) -> bool:
        """Whether several in a row failed: then all would, perhaps, by one cause."""
        return self._in_a_row >= _IN_A_ROW

    @contextmanager
    def part(self) -> Iterator[None]:
        """Do a part of the work in the block."""
        try:
            yield
            self._in_a_row = 0
        except Exception as error:
            self.errors += error.exceptions if isinstance(error, ExceptionGroup) else [error]
            self._in_a_row += 1


class InThreads(PlainDoFn):
    """Give all that the function does for an element, which may be tagged, CORES elements at a time.

    Results follow in the order of elements. Where one fails the others go on, and the bundle ends with its error;
    several in a row end it at once. An element holds so many units: where these are short work, threads would spend
    their time on taking the interpreter from each other, and there are none.
    """

    def __init__(self, function: Callable[..., Sequence[Any]], units: int = 1) -> None:
        self._function, self._units, self._going_on = function, units, GoingOn()
        self._waiting: deque[Future[tuple[float, Sequence[Any]]]] = deque()
        self._seconds = _LONG  # that a unit takes, on a moving average

    def start_bundle(self) -> None:
        self._waiting, self._going_on = deque(), GoingOn()

    def process(self, element: Any, *side: Any) -> Iterator[Any]:
        """Give what is done of the elements so far."""
        if self._seconds < _SHORT:
            yield from self._rest()
            yield from self._take(lambda: _timed(self._function, element, *side), 1)
            return
        self._waiting.append(threads("unit").submit(_timed, self._function, element, *side))
        if len(self._waiting) > CORES:
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        """Give the rest. Raises what failed."""
        yield from map(in_window, self._rest())
        write_records()
        if self._going_on.errors:
            raise join_errors(self._going_on.errors)

    def _rest(self) -> Iterator[Any]:
        while self._waiting:
            yield from self._next()

    def _next(self) -> Sequence[Any]:
        # short work spends most of its time on waiting for the others
        return self._take(self._waiting.popleft().result, CORES)

    def _take(self, result: Callable[[], tuple[float, Sequence[Any]]], threads: int) -> Sequence[Any]:
        outputs: Sequence[Any] = ()
        try:
            with self._going_on.part():
                seconds, outputs = result()
                self._count(seconds / threads)
            if self._going_on.is_over:
                raise join_errors(self._going_on.errors)
        except BaseException as error:
            begun = [future for future in self._waiting if not future.cancel()]
            if isinstance(error, Exception):  # an interrupt ends the process, whatever they do
                wait(begun)
            raise
        return outputs

    def _count(self, seconds: float) -> None:
        self._seconds += _WEIGHT * (min(seconds / self._units, _LONG) - self._seconds)


def _timed(function: Callable[..., Sequence[Any]], *arguments: Any) -> tuple[float, Sequence[Any]]:
    began = time.perf_counter()
    outputs = function(*arguments)
    return time.perf_counter() - began, outputs
