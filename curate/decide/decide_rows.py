"""Decides all rows, in order: rules, deduplication, later rules, and the selection among the remaining rows."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, stages
from curate.base.numeric.arrays import I64, whole
from curate.decide.apply_rules import RuleAnswer, apply_later_rules, apply_rules
from curate.decide.dedup import exact
from curate.decide.deduplicate import deduplicate
from curate.decide.draw.selection import Choice
from curate.decide.select_rows import choose, count_matches, count_survivors, draw_rows
from curate.decide.settings import DecideSettings
from curate.decide.unit_state import Texts, UnitState
from curate.run.units import Answer, ToUnit, Units
from curate.store.tables import OpenTables

_KEY = np.dtype([("high", np.uint64), ("low", np.uint64), ("order", np.uint64), ("row", np.int32)])
_TEXT = np.dtype([("row", np.int32), ("texts", np.int32), ("chosen", np.bool_)])


class Decided(NamedTuple):
    """The results of the decisions over all units. Each is None if the recipe does not need it."""

    rules: Sequence[RuleAnswer]
    recalls: Sequence[I64]  # for each pass by nearness: `Groups.recall`
    large: Sequence[tuple[int, str]]  # the largest groups of duplicates: rows, and the representative's uid
    pool: I64 | None  # [entries], matching rows of the pool before any rule
    survivors: I64 | None  # [entries], matching rows before the selection
    choice: Choice | None  # of the selection; None if all remaining rows are kept
    sums: I64 | None  # [2, entries], expected (fixed point) and kept rows


def decide_rows(
    units: Units, settings: DecideSettings, unread: Answer[list[str]], n_buckets: int = 1
) -> tuple[Answer[Decided], Answer[I64] | None]:
    """Decide all rows, and write `decisions` of each unit; also return `Decided.survivors` separately."""
    rules = units.at("rules", apply_rules, settings)
    matches = count_matches(units, settings) if settings.matching else None
    recalls, large = units.at("duplicates", deduplicate, settings, n_buckets)
    rules += units.at("rules", apply_later_rules, settings)
    surviving = None if matches is None else count_survivors(units, settings, matches)
    drop_duplicate_captions(units, settings, n_buckets)
    choice = choose(units, settings, surviving)
    sums = draw_rows(units, settings, unread, choice, surviving)
    entries, near = {"matches": matches, "survivors": surviving, "sums": sums}, len(recalls)

    def decided(*answers: Any, matches: I64 | None, **others: Any) -> Decided:
        pool = None if matches is None else matches[0]
        return Decided(answers[near:], answers[:near], pool=pool, **others)

    answers = units.get("Decide: results", decided, *recalls, *rules, large=large, choice=choice, **entries)
    return answers, surviving


def drop_duplicate_captions(units: Units, settings: DecideSettings, n_buckets: int = 1) -> None:
    """Keep one remaining row per URL or image, if `balance.one_per` says so.

    The row with the smallest hash of uid and seed stays; all rows count toward entries. A row whose URL or image is
    null or empty stays. Network traffic: 28 bytes per remaining row. `n_buckets` does not change results.
    """
    if settings.one_caption_per is None:
        return
    keys = units.pairs("Texts: keys", _keys, settings.one_caption_per, settings.recipe.seed, n_buckets)
    units.then("Texts: drop", _drop, sent=units.group("Texts: choose", keys, _choose))


def _keys(tables: OpenTables, state: UnitState, name: str, seed: int, n_buckets: int) -> Iterator[tuple[int, Any]]:
    """Yield a unit's index and keys by bucket; `name` is the column with URLs or images."""
    samples = tables.read("samples", ["uid", name])
    column: Any = whole(samples[name])
    high, low, _ = exact.pass_keys(column)
    is_there: Any = pc.not_equal(column, pa.scalar("", column.type)).fill_null(False)
    rows = np.flatnonzero(state.surviving & is_there.to_numpy(False))
    keys = np.empty(len(rows), _KEY)
    keys["high"], keys["low"], keys["row"] = high[rows], low[rows], rows
    keys["order"] = ids.hash_uids(whole(samples["uid"]), seed)[rows]
    buckets = exact.bucket_of(keys["high"], keys["low"], n_buckets)
    yield from ((bucket, (state.unit.index, part)) for bucket, part in exact.by_number(keys, buckets))


def _choose(bucket: int, parts: Sequence[tuple[int, npt.NDArray[np.void]]]) -> Iterator[ToUnit]:
    """Yield for each unit its rows that share an image, the number of rows of the image, and whether each is chosen."""
    in_order = sorted(parts, key=lambda part: part[0])  # so that ties choose the same row
    keys = np.concatenate([part for _, part in in_order])
    units = np.repeat([unit for unit, _ in in_order], [len(part) for _, part in in_order])
    order = np.lexsort((keys["order"], keys["low"], keys["high"]))
    high, low = keys["high"][order], keys["low"][order]
    is_first = np.concatenate([[True], (high[1:] != high[:-1]) | (low[1:] != low[:-1])])
    sizes = np.diff(np.flatnonzero(is_first), append=len(order))
    texts = np.empty(len(order), _TEXT)
    texts["row"], texts["texts"], texts["chosen"] = keys["row"][order], np.repeat(sizes, sizes), is_first
    several = texts["texts"] > 1
    yield from (ToUnit(unit, part) for unit, part in exact.by_number(texts[several], units[order][several]))


def _drop(tables: OpenTables, state: UnitState, sent: list[npt.NDArray[np.void]]) -> UnitState:
    texts = np.concatenate([np.empty(0, _TEXT), *sent])
    texts = texts[np.argsort(texts["row"])]
    state = state.drop(texts["row"][~texts["chosen"]], stages.CODES[stages.OTHER_TEXT])
    return replace(state, texts=Texts(texts["row"].copy(), texts["texts"].copy())) if len(texts) else state
