"""Units in this process: each step is done at once, over all units, by threads: for `plan`, `whatif`, `forget`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from curate.base.process import in_threads, unit_threads
from curate.run.context import RunContext
from curate.run.units import Answer, Aside, Batch, Combine, Pairs, Units


class _Value(Answer):
    def __init__(self, value: Any, is_list: bool = False) -> None:
        self.value, self.is_list = value, is_list


class _Grouped(Pairs):
    def __init__(self, batch: Callable[[], Batch] | None = None) -> None:
        self.by_key: dict[Any, Any] = defaultdict(batch or list)
        self._is_batched = batch is not None
        self._asides: list[Any] = []
        self.aside = _Value(self._asides, is_list=True)

    @property
    def items(self) -> Answer:  # type: ignore[override]
        return _Value([(key, value) for key in self.by_key for value in self.values(key)], is_list=True)

    def take(self, items: Iterable[Any]) -> None:
        for item in items:
            if isinstance(item, Aside):
                self._asides.append(item.value)
            elif self._is_batched:
                self.by_key[item[0]].add(item[1])
            else:
                self.by_key[item[0]].append(item[1])

    def values(self, key: Any) -> list[Any]:
        if key not in self.by_key:
            return []
        return [self.by_key[key].pack()] if self._is_batched else list(self.by_key[key])


class InProcessUnits(Units):
    """Units of a run, or their states as a run left them; `elements` are those after all steps so far."""

    def __init__(self, elements: Sequence[Any], context: RunContext) -> None:
        self.elements, self._context = list(elements), context

    def value(self, answer: Answer) -> Any:
        """Return an answer's value."""
        assert isinstance(answer, _Value)
        return answer.value

    def then(self, name: str, function: Callable[..., Any], *values: Any, sent: Pairs | None = None) -> None:
        """Give each unit its next state."""
        self.elements = list(self._do(function, values, sent))

    def ask(
        self, name: str, function: Callable[..., Iterable[Any]], *values: Any, combine: Combine[Any, Any] | None = None
    ) -> Answer:
        """Ask each unit; parts are combined as they come."""
        parts = (part for parts in self._do(_listed(function), values, None) for part in parts)
        return _Value(list(parts), is_list=True) if combine is None else _Value(combine.whole(parts))

    def pairs(
        self,
        name: str,
        function: Callable[..., Iterable[tuple[Any, Any]]],
        *values: Any,
        sent: Pairs | None = None,
        batch: Callable[[], Batch] | None = None,
    ) -> Pairs:
        """Ask each unit for pairs."""
        pairs = _Grouped(batch)
        for items in self._do(_listed(function), values, sent):
            pairs.take(items)
        return pairs

    def group(self, name: str, pairs: Pairs, function: Callable[..., Iterable[Any]], *values: Any) -> Pairs:
        """Work on the values of each key."""
        assert isinstance(pairs, _Grouped)
        known, grouped = _plain(values), _Grouped()

        def work(key: Any) -> list[Any]:
            return list(function(key, pairs.values(key), *known))

        for items in in_threads(work, list(pairs.by_key), threads=unit_threads()):
            grouped.take(items)
        return grouped

    def get(self, name: str, function: Callable[..., Any], *values: Any) -> Answer:
        """Compute what follows from answers."""
        return _Value(function(*_plain(values)))

    def combine(self, name: str, answers: Sequence[Answer], combine: Combine[Any, Any] | None = None) -> Answer:
        """Combine lists."""
        items = [item for answer in answers for item in _items(answer)]
        return _Value(items, is_list=True) if combine is None else _Value(combine.whole(items))

    def each(self, name: str, items: Answer, function: Callable[..., Any], *values: Any) -> Answer:
        """Work on the items of an answer."""
        known = _plain(values)
        results = in_threads(lambda item: function(item, *known), self.value(items), threads=unit_threads())
        return _Value(list(results), is_list=True)

    def _do(self, function: Callable[..., Any], values: tuple[Any, ...], sent: Pairs | None) -> Iterator[Any]:
        """Yield what the function returns for each element."""
        known = _plain(values)

        def work(element: Any) -> Any:
            unit = getattr(element, "unit", element)
            with self._context.open_tables(unit) as tables:
                if isinstance(sent, _Grouped):
                    return function(tables, element, sent.values(unit.index), *known)
                return function(tables, element, *known)

        return in_threads(work, self.elements, threads=unit_threads())


def _plain(values: tuple[Any, ...]) -> list[Any]:
    return [value.value if isinstance(value, _Value) else value for value in values]


def _items(answer: Answer) -> list[Any]:
    assert isinstance(answer, _Value)
    return answer.value if answer.is_list else [answer.value]


def _listed(function: Callable[..., Iterable[Any]]) -> Callable[..., list[Any]]:
    """Return the function with a list in place of what it yields: its tables are closed when it returns."""
    return lambda *arguments: list(function(*arguments))
