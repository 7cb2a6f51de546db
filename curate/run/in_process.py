"""Units in this process: each step runs immediately over all units, for `plan`, `whatif`, `forget` and debugging."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import curate.base.compiling  # noqa: F401
from curate.base.process import in_threads
from curate.run.context import RunContext
from curate.run.units import Answer, Combine, P, Pairs, SideOutput, T_co, Units, W, Yields


class _Value(Answer[T_co]):
    def __init__(self, value: T_co) -> None:
        self.value = value


class _Grouped(Pairs):
    def __init__(self, by_key: dict[Any, list[Any]], asides: Sequence[Any] = ()) -> None:
        self.by_key, self.side_output = by_key, _Value(list(asides))
        self.items = _Value([(key, value) for key, values in by_key.items() for value in values])


class InProcessUnits(Units):
    """Units of a run, or their stored states. `elements` are the states after all steps so far.

    Threads work on them. With `is_serial`, this thread works on them one at a time, so that a debugger reaches each
    step.
    """

    def __init__(self, elements: Sequence[Any], context: RunContext, is_serial: bool = False) -> None:
        self.elements, self._context, self._is_serial = list(elements), context, is_serial

    def value(self, answer: Answer[W]) -> W:
        assert isinstance(answer, _Value)
        value: W = answer.value
        return value

    def then(self, name: str, function: Callable[..., Any], *values: Any, sent: Pairs | None = None) -> None:
        self.elements = list(self._do(function, values, sent, lambda state: state))

    def ask(self, name: str, function: Yields, *values: Any, combine: Combine | None = None) -> Answer[Any]:
        parts = chain.from_iterable(self._do(function, values, None, list))
        return _Value(list(parts) if combine is None else combine.reduce(parts))

    def pairs(self, name: str, function: Yields, *values: Any, sent: Pairs | None = None) -> Pairs:
        by_key: dict[Any, list[Any]] = defaultdict(list)
        for key, value in chain.from_iterable(self._do(function, values, sent, list)):
            by_key[key].append(value)
        return _Grouped(by_key)

    def group(self, name: str, pairs: Pairs, function: Yields, *values: Any) -> Pairs:
        assert isinstance(pairs, _Grouped)
        constants, grouped, asides = _plain(values), defaultdict(list), []

        def work(item: tuple[Any, list[Any]]) -> list[Any]:
            return list(function(item[0], list(item[1]), *constants))

        for part in chain.from_iterable(self._map(work, pairs.by_key.items())):
            if isinstance(part, SideOutput):
                asides.append(part.value)
            else:
                grouped[part[0]].append(part[1])
        return _Grouped(grouped, asides)

    def get(self, name: str, function: Callable[..., W], *values: Any, **named: Any) -> Answer[W]:
        return _Value(function(*_plain(values), **dict(zip(named, _plain(named.values()), strict=True))))

    def combine(self, name: str, answers: Sequence[Answer[list[P]]], combine: Combine[P, W]) -> Answer[W]:
        return _Value(combine.reduce(chain.from_iterable(map(self.value, answers))))

    def each(self, name: str, items: Answer[list[Any]], function: Callable[..., W], *values: Any) -> Answer[list[W]]:
        constants = _plain(values)
        return _Value(list(self._map(lambda item: function(item, *constants), self.value(items))))

    def _do(
        self, function: Callable[..., Any], values: tuple[Any, ...], sent: Pairs | None, finish: Callable[[Any], Any]
    ) -> Iterator[Any]:
        """Yield the function's result for each element.

        Each result is complete before the element's tables are closed.
        """
        constants = _plain(values)

        def work(element: Any) -> Any:
            unit = getattr(element, "unit", element)
            received = [sent.by_key.get(unit.index, [])] if isinstance(sent, _Grouped) else []
            with self._context.open_tables(unit) as tables:
                return finish(function(tables, element, *received, *constants))

        return self._map(work, self.elements)

    def _map(self, work: Callable[[Any], Any], items: Collection[Any]) -> Iterator[Any]:
        if self._is_serial or len(items) == 1:  # the first runs here: this thread reuses memory that another frees
            return map(work, items)
        return in_threads(work, items, pool="unit")


def _plain(values: Iterable[Any]) -> list[Any]:
    return [value.value if isinstance(value, _Value) else value for value in values]
