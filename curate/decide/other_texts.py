"""`balance.one_per`: of the rows left with one URL or image, which are texts of one image, one alone may be drawn.

It is the one with the smallest hash of uid and seed, whichever rows there are; the others drop as `other_text`. All of
them count in entries' counts. In: column `url` or `sha256`; a row whose value is null or empty is on its own. Out: the
verdicts, and `UnitState.texts`. What crosses the network: 28 bytes a row left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import whole
from curate.decide.dedup import exact
from curate.decide.settings import DecideSettings
from curate.decide.unit_state import Texts, UnitState
from curate.run.units import ToUnit, Units
from curate.store.tables import OpenTables

_KEY = np.dtype([("high", np.uint64), ("low", np.uint64), ("order", np.uint64), ("row", np.int32)])
_TEXT = np.dtype([("row", np.int32), ("texts", np.int32), ("chosen", np.bool_)])


def drop_other_texts(units: Units, settings: DecideSettings, n_buckets: int = 1) -> None:
    """Drop all rows but one of each URL or image, where the recipe says so. `n_buckets` changes no result."""
    if settings.one_per is None:
        return
    keys = units.pairs("Texts: keys", _keys, settings, n_buckets)
    units.then("Texts: drop", _drop, sent=units.group("Texts: choose", keys, _choose))


def _keys(
    tables: OpenTables, state: UnitState, settings: DecideSettings, n_buckets: int
) -> Iterator[tuple[int, tuple[int, npt.NDArray[np.void]]]]:
    """Yield the unit and the keys of its rows left, by bucket."""
    assert settings.one_per is not None
    samples = tables.read("samples", ["uid", settings.one_per])
    column: Any = whole(samples[settings.one_per])
    high, low, is_there = exact.pass_keys(column)
    rows = np.flatnonzero(
        state.alive & is_there & pc.not_equal(column, pa.scalar("", column.type)).fill_null(False).to_numpy(False)
    )
    keys = np.empty(len(rows), _KEY)
    keys["high"], keys["low"], keys["row"] = high[rows], low[rows], rows
    keys["order"] = ids.hash_uids(whole(samples["uid"]), settings.seed)[rows]
    numbers = exact.bucket_of(keys["high"], keys["low"], n_buckets)
    for number in np.unique(numbers).tolist():
        yield number, (state.unit.index, keys[numbers == number])


def _choose(bucket: int, parts: Sequence[tuple[int, npt.NDArray[np.void]]]) -> Iterator[ToUnit]:
    """Yield for each unit its rows whose image has several, how many it has, and whether the row is chosen."""
    in_order = sorted(parts, key=lambda part: part[0])  # so that even of equal hashes the same one is chosen
    keys = np.concatenate([part for _, part in in_order])
    units = np.repeat([unit for unit, _ in in_order], [len(part) for _, part in in_order])
    order = np.lexsort((keys["order"], keys["low"], keys["high"]))
    high, low = keys["high"][order], keys["low"][order]
    is_first = np.concatenate([[True], (high[1:] != high[:-1]) | (low[1:] != low[:-1])])
    sizes = np.diff(np.flatnonzero(is_first), append=len(order))
    texts = np.empty(len(order), _TEXT)
    texts["row"], texts["texts"], texts["chosen"] = keys["row"][order], np.repeat(sizes, sizes), is_first
    several = texts["texts"] > 1
    texts, of_units = texts[several], units[order][several]
    yield from (ToUnit(int(unit), texts[of_units == unit]) for unit in np.unique(of_units))


def _drop(tables: OpenTables, state: UnitState, sent: list[npt.NDArray[np.void]]) -> UnitState:
    """Return the state without the rows that are not chosen, and with the numbers of texts."""
    texts = np.concatenate([np.empty(0, _TEXT), *sent])
    texts = texts[np.argsort(texts["row"])]
    others = np.zeros(len(state.verdicts), bool)
    others[texts["row"][~texts["chosen"]]] = True
    state = state.drop(others, schema.CODES[schema.OTHER_TEXT])
    return replace(state, texts=Texts(texts["row"].copy(), texts["texts"].copy())) if len(texts) else state
