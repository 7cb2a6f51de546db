"""`sample: {soft_cap: …}`: M draws with repeats; each draw of a row makes the next one less likely (M-FLYT).

Source: Soft Cap Sampling in "Filter Like You Test" (arXiv 2503.08805): p = softmax(score); a batch is drawn without
replacement, the score of each row in it is lowered by a penalty, and so on until M draws. Here a batch consists of the
rows with the largest score + Gumbel number, from a hash of seed, round and uid, which has the same distribution. One
worker, with 16 bytes per row, finds the last key of each round, from which units compute how often each row is drawn.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from pydantic import Field

from curate.base import ids
from curate.base.errors import RunError
from curate.base.numeric.arrays import F32, F64, I32, I64, U64
from curate.base.numeric.elementary import GOLDEN, log, mix64, unit
from curate.base.process import groups, in_threads
from curate.base.wording import pluralize
from curate.decide.draw.groups import check_numbers
from curate.decide.draw.selection import Choice, Outcome, RowsLeft, Selection, SelectionRun, required
from curate.recipe.deciding import Sample
from curate.recipe.section import AnyColumn, Column, Section
from curate.run.units import Answer, Fold, Units
from curate.store.facts import SelectionWords
from curate.store.tables import OpenTables

MAX_ROWS = 500_000_000  # in one worker's 8 GB
MAX_ROUNDS = 100_000  # each takes a hash per row
_TOGETHER = 1 << 20  # rows per thread
_STEP, _SPAN = 0.01, 45.0  # step and range of x in a table of e^x: a Gumbel number is at most 36.8
_BOUNDS = np.exp(np.arange(0, _SPAN, _STEP) + _STEP - _SPAN + 1) * (1 + 1e-9)  # upper bounds of e^(x + 1 − 45)


class SoftCap(Section):
    """Draws rows repeatedly by a score. Each draw makes the next draw of the same row less likely (M-FLYT's SCS).

    curate draws batch by batch. Within a batch it draws without replacement, with p = softmax(score). Then it subtracts
    `penalty` from the scores of the rows in the batch. It never draws rows whose score is null, NaN, or infinite. If
    fewer rows than `batch` have a score, each batch has all of them. `probability` is null. One worker must hold the
    scores of all rows, so at most 500 million rows may have a score.
    """

    example: ClassVar[Any] = {"of": "score", "draws": 1000000}
    gives = (Column("decisions", "repeats", "int32", "Number of times the row was drawn. Rows with 0 are dropped."),)

    of: AnyColumn = Field(examples=["score"])
    """Column of scores. They are logarithms of weights, and curate reads them as float32."""
    draws: int = Field(examples=[1000000], ge=1, le=10**12, strict=True)
    """Number of draws. The values in the column `repeats` add up to this number."""
    penalty: float = Field(0.15, examples=[0.3], ge=0, strict=True)
    """How much each draw subtracts from the row's score."""
    batch: int = Field(100_000, examples=[10000], ge=1, lt=2**31, strict=True)
    """Draws per batch. A batch draws each row at most once."""


class Scores(NamedTuple):
    """Rows with a score: a hash of uid and seed, and the score (as float32)."""

    hashes: U64
    scores: F32


class _Block(NamedTuple):
    hashes: U64
    scores: F32
    times: I32  # number of draws of each so far, a view into those of all units
    first: int  # start of the view


class Draws(NamedTuple):
    """The data from which each row computes its number of draws: full rounds, then the last key of other rounds."""

    rows: int  # with a score
    whole: int  # initial rounds that draw all rows
    keys: F64  # [rounds], score + Gumbel number
    hashes: U64  # [rounds], to break ties


def read_scores(rows: RowsLeft, column: str) -> F32:
    """Return the score of each row, NaN if it is never drawn (float32[n])."""
    scores = np.asarray(rows.read([column])[column].cast(pa.float64()).to_numpy(), np.float64).astype(np.float32)
    return np.where(np.isfinite(scores), scores, np.float32(np.nan))


def round_salts(first: int, rounds: int) -> U64:
    """Return the numbers that are mixed into the hashes of some rounds (uint64[rounds])."""
    return np.asarray(mix64(np.arange(first + 1, first + rounds + 1, dtype=np.uint64) * GOLDEN), np.uint64)


@njit(nogil=True, cache=True)
def _key(bits: U64, score: float, least: float) -> float:
    """Return score − log(−log(u)), or −inf if it is below `least` by a bound that needs no logarithm."""
    u, step = unit(bits), (score - least + _SPAN - 1.0) / _STEP
    if step < 0.0 or (step < len(_BOUNDS) and 1.0 - u > _BOUNDS[int(step)]):
        return -np.inf  # −log(u) ≥ 1 − u > e^(score − least)
    return float(score - log(-log(u)))


@njit(nogil=True, cache=True)
def _candidates(block: _Block, penalty: float, salt: U64, least: float, out: I32, keys: F64) -> int:
    """Write rows with a key of at least `least`, and their keys, to `out` and `keys`; return their number."""
    hashes, scores, times, _ = block
    count = 0
    for i in range(len(hashes)):
        key = _key(mix64(hashes[i] ^ salt), scores[i] - penalty * times[i], least)
        if key >= least:
            out[count], keys[count] = i, key
            count += 1
    return count


@njit(nogil=True, cache=True)
def _replay(hashes: U64, scores: F32, penalty: float, salts: U64, ends: F64, ties: U64, times: I32) -> None:
    """Add to `times` the number of draws of each row in some rounds, by the last key of each round."""
    for i in range(len(hashes)):
        for n in range(len(salts)):
            key = _key(mix64(hashes[i] ^ salts[n]), scores[i] - penalty * times[i], ends[n])
            if key > ends[n] or (key == ends[n] and hashes[i] >= ties[n]):
                times[i] += 1


@njit(nogil=True, cache=True)
def _count_scores(scores: F32, times: I32, penalty: float, highest: float, out: I64) -> None:
    """Count rows by the distance of their score from the highest, in steps; the last counter has the rest."""
    for i in range(len(scores)):
        step = min((highest - (scores[i] - penalty * times[i])) / _STEP, len(out) - 1.0)
        out[int(step)] += 1


def find_draws(parts: Sequence[Scores], draws: int, penalty: float, batch: int) -> Draws:
    """Return the data for the number of draws of each row, from the rows with a score of all units, in any order.

    Raises RunError if there are more than MAX_ROUNDS batches.

    Memory: 16 bytes per row, plus threads. Work: a hash per row and round.
    """
    starts = np.cumsum([0, *(len(part.hashes) for part in parts)])
    total = int(starts[-1])
    few = min(max(1, batch), total)  # `plan` may scale a batch to none
    whole = draws // few if few and total <= batch else 0
    rounds = -(-draws // few) if few else 0
    if rounds > MAX_ROUNDS:
        error = f"sample.soft_cap: {draws:,} draws of {total:,} rows in batches of {few:,} need {rounds:,} batches"
        raise RunError(f"{error}; accepted: at most {MAX_ROUNDS:,} batches; use fewer draws or larger batches")
    sizes = [min(few, draws - n * few) for n in range(whole, rounds)]
    times = np.full(total, whole, np.int32)
    blocks = [
        _Block(*part, times[first:end], first)
        for part, (first, end) in zip(parts, pairwise(starts.tolist()), strict=True)
    ]
    together = list(groups(blocks, lambda block: len(block.hashes), _TOGETHER))
    salts, ends, ties = round_salts(whole, len(sizes)), np.empty(len(sizes)), np.empty(len(sizes), np.uint64)
    for n, size in enumerate(sizes):
        ends[n], ties[n] = _draw_round(together, times, penalty, salts[n], size)
    return Draws(total, whole, ends, ties)


def _draw_round(together: list[list[_Block]], times: I32, penalty: float, salt: Any, size: int) -> tuple[float, Any]:
    """Draw a batch of this many rows, count it in `times`, and return its last key and hash."""

    def find(blocks: list[_Block]) -> list[tuple[I64, F64, U64]]:
        candidates = []
        for block in blocks:
            out, keys = np.empty(len(block.hashes), np.int32), np.empty(len(block.hashes))
            n = _candidates(block, penalty, salt, minimum, out, keys)
            candidates.append((block.first + out[:n].astype(np.int64), keys[:n].copy(), block.hashes[out[:n]]))
        return candidates

    minimum = _guess(list(chain(*together)), penalty, size)
    parts: list[tuple[I64, F64, U64]] = []
    while sum(len(rows) for rows, *_ in parts) < size:
        parts = list(chain(*in_threads(find, together)))
        minimum -= 0.5
    rows, keys, hashes = (np.concatenate(column) for column in zip(*parts, strict=True))
    among = np.argpartition(-keys, size - 1)[:size] if size < len(keys) else np.arange(len(keys))
    end = keys[among].min()
    tied = np.flatnonzero(keys == end)
    above = np.flatnonzero(keys > end)
    drawn = np.concatenate([above, tied[np.argsort(hashes[tied])[::-1][: size - len(above)]]])
    times[rows[drawn]] += 1
    return float(end), hashes[drawn[len(above) :]].min()


def _guess(blocks: list[_Block], penalty: float, size: int) -> float:
    """Return a key that slightly more than this many rows reach; minus infinity if nearly all are drawn."""
    highest = max(float((block.scores - penalty * block.times).max(initial=-np.inf)) for block in blocks)
    highest = float(np.nextafter(highest, np.inf)) + 1e-3
    counts = np.zeros(4096, np.int64)
    for block in blocks:
        _count_scores(block.scores, block.times, penalty, highest, counts)
    below, target = (np.arange(len(counts) - 1) + 1) * _STEP, size + 6 * np.sqrt(size) + 10
    if target >= counts[:-1].sum():
        return -np.inf

    def missing(step: int) -> float:
        """Return the expected shortfall of rows above a key this many steps over the highest score."""
        return float(target - counts[:-1] @ -np.expm1(-np.exp(np.minimum(700, -below - step * _STEP))))

    last = round(60 / _STEP)
    return highest + _STEP * (bisect_left(range(-last, last), 0.0, key=missing) - last - 1)


@dataclass(frozen=True)
class SoftCapChoice(Choice):
    """Computes how often each row is drawn."""

    section: SoftCap
    draws_of: Draws
    is_random = False

    def times(self, rows: RowsLeft) -> I32:
        scores, draws = read_scores(rows, self.section.of), self.draws_of
        has_score = ~np.isnan(scores)
        times = np.full(int(has_score.sum()), draws.whole, np.int32)
        salts, hashes = round_salts(draws.whole, len(draws.keys)), ids.hash_uids(rows.uids, rows.seed)[has_score]
        _replay(hashes, scores[has_score], self.section.penalty, salts, draws.keys, draws.hashes, times)
        out = np.zeros(len(scores), np.int32)
        out[has_score] = times
        return out

    def inclusion(self, rows: RowsLeft) -> F64:
        return (self.times(rows) > 0).astype(np.float64)

    def draws(self, rows: RowsLeft) -> F64:
        return np.asarray(1.0 / (1.0 + self.times(rows)))

    def repeats(self, draws: F64) -> I32:
        return np.asarray(np.rint(1.0 / draws - 1.0), np.int32)

    @property
    def label(self) -> str:
        draws, section = self.draws_of, self.section
        rounds = pluralize(draws.whole + len(draws.keys), "batch", "batches")
        return f"{section.draws if draws.rows else 0:,} draws from {draws.rows:,} rows by {section.of} in {rounds}"


class SoftCapSample(Selection):
    """Draws with repeats, limited by soft caps."""

    key, section = "sample", Sample
    meaning = "not drawn in any batch of the soft cap sample"
    sizes_of = ("soft_cap.draws", "soft_cap.batch")
    has_repeats = True

    def columns(self, section: Sample) -> Sequence[str]:
        return [required(section.soft_cap).of]

    def check(self, section: Sample, columns: pa.Schema, recipe: Any) -> None:
        check_numbers("sample.soft_cap.of", required(section.soft_cap).of, columns)

    def choose(self, units: Units, section: Sample, run: SelectionRun, counts: Answer | None) -> Answer:
        soft_cap = required(section.soft_cap)

        def count(tables: OpenTables, state: Any) -> list[int]:
            return [int((~np.isnan(read_scores(run.rows_left(tables, state), soft_cap.of))).sum())]

        def check(total: int) -> int:
            if total > MAX_ROWS:
                error = f"sample.soft_cap: {total:,} rows have a score, and one worker must hold all of them"
                raise RunError(f"{error}; accepted: at most {MAX_ROWS:,} rows; use stricter rules or a top rule")
            return total

        def read(tables: OpenTables, state: Any, _: int) -> Iterator[Scores]:
            rows = run.rows_left(tables, state)
            scores = read_scores(rows, soft_cap.of)
            if (has_score := ~np.isnan(scores)).any():
                yield Scores(ids.hash_uids(rows.uids, run.seed)[has_score], scores[has_score])

        def choose(parts: Sequence[Scores]) -> SoftCapChoice:
            return SoftCapChoice(soft_cap, find_draws(parts, soft_cap.draws, soft_cap.penalty, soft_cap.batch))

        total = units.get("Soft cap: check", check, units.ask("Soft cap: count", count, combine=Fold[int]()))
        return units.get("Soft cap: draw", choose, units.ask("Soft cap: scores", read, total))

    def words(self, outcome: Outcome) -> SelectionWords:
        section = outcome.choice.section
        terms = f"penalty {section.penalty:g}, batches of {section.batch:,}; seed {outcome.seed}"
        return SelectionWords(
            kept=f": it was drawn; its {section.of} is {{value}}",
            dropped=f"it was not drawn in any batch; its {section.of} is {{value}}",
            card=f"{outcome.choice.label} (soft cap sampling, {terms})",
            summary=[f"sample: {outcome.choice.label}; {outcome.kept:,} rows were drawn"],
            of=section.of,
        )
