"""Finds rows of a finished run that may succeed on another attempt, for `curate run --retry`."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.download.fetch_error import REFUSED_BY_LIMITS
from curate.download.source import UrlsSource
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading
from curate.recipe.source import Source, find_source
from curate.store.layout import FAILURES_FILE
from curate.store.store import RunStore

_COLUMNS = pa.schema([field for field in schema.RETRIES if field.name != "round"])


def find_mendable(folder: RunStore, units: Iterable[Unit], sources: Sequence[Source]) -> pa.Table:
    """Return the rows of lists that may succeed on another attempt: schema.RETRIES without `round`.

    Memory holds one part's failures, and the returned rows.
    """
    remaining, tables = iter(units), [_COLUMNS.empty_table()]
    if not any(map(find_downloading, sources)):
        return tables[0]
    unit: Unit | None = None
    with folder.open_parquet(FAILURES_FILE) as failures:
        for part in failures.read_groups():
            may = pc.or_(part["may_pass"], pc.is_in(part["reason"], pa.array(REFUSED_BY_LIMITS)))
            table = part.filter(pc.and_(may, part["key"].is_valid()))
            rows: list[dict[str, Any]] = []
            names = ["unit", "may_pass", "reason", "detail", "shard", "key", "attempts"]
            failed = zip(*table.select(names).to_pydict().values(), strict=True)
            for index, of_unit in groupby(failed, itemgetter(0)):
                if unit is None or unit.index != index:
                    unit = next(unit for unit in remaining if unit.index == index)
                source = find_source(sources, unit.source)
                kind = find_downloading(source)
                assert kind and isinstance(source, UrlsSource)  # only this format records whether a row may succeed
                parts = {kind.shard(source, part): part for part in unit.parts}
                lists = {shard: kind.list_key(source, part) for shard, part in parts.items()}
                for _, may_pass, reason, detail, shard, key, attempts in of_unit:
                    if may_pass or source.network.allows_now(reason, detail):
                        values = (source.name, lists[shard], kind.list_row(source, parts[shard], key), key, attempts)
                        rows.append(dict(zip(_COLUMNS.names, values, strict=True)))
            tables.append(pa.Table.from_pylist(rows, schema=_COLUMNS))
    return pa.concat_tables(tables)
