"""Finds which rows of a finished run another attempt may mend: what `curate run --retry` tries again."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading
from curate.pool.urls.download.fetch_fault import REFUSED_BY_LIMITS
from curate.pool.urls.download.source import UrlsSource
from curate.recipe.source import Source, find_source

_COLUMNS = pa.schema([field for field in schema.RETRIES if field.name != "round"])


def find_mendable(units: Iterable[Unit], sources: Sequence[Source], failures: pa.Table) -> pa.Table:
    """Return the rows of lists that may come on another attempt: schema.RETRIES but `round`.

    `failures` are the run's, columns unit, shard, key, reason, detail, attempts and may_pass of schema.FAILURES.
    """
    may = pc.or_(failures["may_pass"], pc.is_in(failures["reason"], pa.array(REFUSED_BY_LIMITS)))
    failures = failures.filter(pc.and_(may, failures["key"].is_valid()))
    of_units: dict[int, list[Any]] = {}
    names = ("unit", "may_pass", "reason", "detail", "shard", "key", "attempts")
    for unit, *row in zip(*(failures[name].to_pylist() for name in names), strict=True):
        of_units.setdefault(unit, []).append(row)
    rows: list[dict[str, Any]] = []
    for unit in (unit for unit in units if unit.index in of_units):
        source = find_source(sources, unit.source)
        kind = find_downloading(source)
        assert kind and isinstance(source, UrlsSource)  # nothing else says whether a row may come
        parts = {kind.shard(source, part): part for part in unit.parts}
        lists = {shard: kind.list_key(source, part) for shard, part in parts.items()}
        for may_pass, reason, detail, shard, key, attempts in of_units[unit.index]:
            if may_pass or source.network.allows_now(reason, detail):
                values = (source.name, lists[shard], kind.list_row(source, parts[shard], key), key, attempts)
                rows.append(dict(zip(_COLUMNS.names, values, strict=True)))
    return pa.Table.from_pylist(rows, schema=_COLUMNS)
