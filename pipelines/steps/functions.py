"""Beam steps from functions, like `beam.Map` and `beam.FlatMap` but without type inference, and with threads.

A Beam worker processes one element at a time, and one unit may not keep all cores busy. Beam's local runner can run
several workers in one process, but then it sometimes reads an element at a wrong position
(github.com/apache/beam/issues/21104). So it runs one worker, and expensive steps use threads.
"""

import os
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from platform import node
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms import userstate
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from curate.base.foreign import naming_packages
from curate.base.process import CORES, threads
from curate.run.units import Combine
from curate.store.error_notes import join_errors
from curate.store.timings import write_records

_WHOLES = 32  # workers that combine large results before the last worker does
_IN_A_ROW = 3  # failures in a row after which no other part is tried


_Specs = tuple[set[userstate.StateSpec], set[userstate.TimerSpec]]
_inspect: Callable[[beam.DoFn], _Specs] = userstate.get_dofn_specs
_INSPECTED: dict[tuple[type, frozenset[str]], _Specs] = {}


def _get_dofn_specs(dofn: beam.DoFn) -> _Specs:
    """Return a DoFn's state and timers, cached by class: Beam inspects all its methods ten times per step."""
    if any(isinstance(value, types.MethodType) for value in vars(dofn).values()):  # perhaps its `process`
        return _inspect(dofn)
    key = type(dofn), frozenset(vars(dofn))  # attributes may hide methods of the class
    if key not in _INSPECTED:
        _INSPECTED[key] = _inspect(dofn)
    states, timers = _INSPECTED[key]
    return set(states), set(timers)


userstate.get_dofn_specs = _get_dofn_specs


class _All(beam.DoFn):
    def __init__(self, function: Callable[..., Iterable[Any]]) -> None:
        self._function = function

    def process(self, element: Any, *side: Any) -> Iterable[Any]:
        with naming_packages():
            yield from self._function(element, *side)


def Map(function: Callable[..., Any], *side: Any) -> beam.ParDo:
    """PCollection[X] → PCollection[Y], with the function's Y for each X.

    `side` are side inputs or other arguments after the element.
    """
    return FlatMap(lambda *arguments: (function(*arguments),), *side)


def FlatMap(function: Callable[..., Iterable[Any]], *side: Any) -> beam.ParDo:
    """PCollection[X] → PCollection[Y], with the function's Ys for each X."""
    return beam.ParDo(_All(function), *side)


def in_window(output: Any) -> Any:
    """Return a value that a DoFn can yield at the end of a bundle."""
    if isinstance(output, TaggedOutput):
        return TaggedOutput(output.tag, in_window(output.value))
    return WindowedValue(output, GlobalWindow().max_timestamp(), [GlobalWindow()])


@dataclass
class CombineAll(beam.PTransform):
    """Combine all elements incrementally, so that a worker holds one result instead of the parts.

    Like Beam's own, but its steps start faster. Without elements it yields nothing: a default would cost a stage. With
    `tree`, which combines results, several workers first combine the results of bundles, of which there are thousands.
    """

    combine: Combine[Any, Any]
    tree: Combine[Any, Any] | None = None

    def expand(self, elements: beam.PCollection[Any]) -> beam.PCollection[Any]:
        """PCollection[part] → PCollection with one result."""
        keys = _WHOLES if self.tree else 1
        key = Map(lambda element: (hash((node(), os.getpid())) % keys, element)).with_output_types(tuple[int, Any])
        combined = elements | "Key" >> key | "Combine" >> beam.CombinePerKey(_CombineFn(self.combine))
        whole = combined | "Value" >> Map(itemgetter(1))
        return whole | "Wholes" >> CombineAll(self.tree) if self.tree else whole


class _CombineFn(beam.CombineFn):
    def __init__(self, combine: Combine[Any, Any]) -> None:
        self.create_accumulator, self.add_input = combine.create, combine.add
        self.merge_accumulators, self.extract_output = combine.merge, combine.result


class ErrorCollector:
    """Collects errors of parts of the work, so that the other parts continue."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._in_a_row = 0

    @property
    def is_over(self) -> bool:
        """Whether several parts in a row failed, probably for a reason that would make all others fail, too."""
        return self._in_a_row >= _IN_A_ROW

    @contextmanager
    def part(self) -> Iterator[None]:
        """Run a part of the work in the block, and collect its error."""
        try:
            yield
            self._in_a_row = 0
        except Exception as error:
            self.errors += error.exceptions if isinstance(error, ExceptionGroup) else [error]
            self._in_a_row += 1


class InThreads(beam.DoFn):
    """Yield the function's results, which may be tagged, with CORES elements in parallel.

    Results are in the order of the elements. If an element fails, the others continue, and the bundle ends with its
    error; several failures in a row end the bundle immediately.
    """

    def __init__(self, function: Callable[..., Sequence[Any]]) -> None:
        self._function, self._collector = function, ErrorCollector()
        self._waiting: deque[Future[Sequence[Any]]] = deque()

    def start_bundle(self) -> None:
        self._waiting, self._collector = deque(), ErrorCollector()

    def process(self, element: Any, *side: Any) -> Iterator[Any]:
        """Yield the results that are ready."""
        self._waiting.append(threads("unit").submit(self._function, element, *side))
        if len(self._waiting) > CORES:
            yield from self._next()

    def finish_bundle(self) -> Iterator[Any]:
        """Yield the other results. Raises the collected errors."""
        while self._waiting:
            yield from map(in_window, self._next())
        write_records()
        if self._collector.errors:
            raise join_errors(self._collector.errors)

    def _next(self) -> Sequence[Any]:
        outputs: Sequence[Any] = ()
        with self._collector.part():
            outputs = self._waiting.popleft().result()
        if self._collector.is_over:
            wait([future for future in self._waiting if not future.cancel()])
            raise join_errors(self._collector.errors)
        return outputs
