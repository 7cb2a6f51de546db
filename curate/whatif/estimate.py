"""What a run will yield and cost, estimated before it from a few whole units, measured and decided as the run would.

Entry counts grow with the pool, so a sample of fraction f is balanced with t·f: p = t/count stays what it would be.
Duplicates are only found within the sample, so fewer than there are. The error is that of cluster sampling over
the units where there are several, else that of the rows, and that of a run's draws.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from curate.captions.cache import Index, index_answers
from curate.captions.rows import Rows, make_requests
from curate.captions.settings import CaptionSettings
from curate.decide import balance, decisions
from curate.decide.bracket import solve_t
from curate.decide.evaluation import write_evaluation
from curate.decide.rounds import apply_rules, count_survivors, deduplicate
from curate.decide.settings import DecideSettings
from curate.decide.state import UnitState
from curate.engines.engine import Request
from curate.forget.block import block
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.metadata.unit import MatchSettings, match_unit
from curate.numeric.arrays import F64
from curate.pool.plan import Unit
from curate.publish.settings import PublishSettings
from curate.run.context import RunContext
from curate.schema import BALANCE, CODES, KEPT
from curate.store.forgotten import Record
from curate.store.layout import METADATA_FILE
from curate.store.store import RunStore
from curate.store.tables import UnitTables

_BYTES, _ROWS = 32 << 20, 50_000  # how much is measured, about
_PROMPTS = 1000  # rows of a unit whose prompts are looked at
_CHARACTERS = 4.0  # of a token, about, in English
_MAX_UNITS = 4


@dataclass(frozen=True)
class EstimatedRequests:
    """What one engine would have to answer for one kind."""

    kind: str  # for what, and by its name in the recipe
    engine: str
    answered: float  # requests with an answer in the run or the one to reuse; of fused texts that is not known before
    requests: float  # those that have none
    tokens_in: float  # of their prompts, an image's not counted
    tokens_out: float  # of their answers, at most
    cost: float  # by the engine's price


@dataclass(frozen=True)
class Estimate:
    """What the sample says of the pool."""

    units: int  # how many were measured
    sampled: int  # rows of theirs
    rows: int  # of the pool; exact for Parquet
    verdicts: dict[str, float]  # expected rows of the pool per rule, `balance` and `kept` included
    error: float  # one standard error of the kept rows
    seconds: float  # of one core, to measure and match what is not current of the pool, here or in the run to reuse
    bytes: int  # of the kept samples' images, where there are images
    requests: list[EstimatedRequests]  # by kind and engine


@dataclass(frozen=True)
class Sampled:
    """How the sample was taken: its fraction of the pool's rows, seconds of a core to measure it, answers already there."""

    fraction: float
    seconds: float
    known: Sequence[Index]


def estimate(
    context: RunContext, units: Sequence[Unit], metadata: pa.Table | None, record: Record | None = None
) -> Estimate | None:
    """Measure a few units in a temporary folder and extrapolates; None for an empty pool. `record`: of what is blocked."""
    sample = _choose(context, units)
    if not sample:
        return None
    left = _size([unit for unit in units if not _is_measured(context, unit)]) / max(1, _size(units))
    known = (
        [index_answers(folder) for folder in (context.store, context.reuse) if folder]
        if context.recipe.captions
        else []
    )
    with tempfile.TemporaryDirectory() as aside:
        context = replace(context, store=RunStore(aside), reuse=None)
        if metadata is not None:
            context.store.write_parquet(METADATA_FILE, metadata)
        if context.recipe.dedup.against:
            write_evaluation(context.store, context.recipe, MeasureSettings.of(context).signals)
        if record is not None:
            record.write(context.store)
        began = time.process_time()
        for unit in sample:
            measure_unit(MeasureSettings.of(context), unit, context.unit_tables(unit))
            if context.recipe.match:
                match_unit(MatchSettings.of(context), context.unit_tables(unit))
        if context.blocklist_key:
            block(PublishSettings.of(context), sample)
        seconds = (time.process_time() - began) * left
        settings = DecideSettings.of(context)
        states = deduplicate(settings, apply_rules(settings, sample))
        sampled = sum(len(state.verdicts) for state in states)
        rows = context.pool.rows
        if rows is None:
            rows = round(sampled * _size(units) / max(1, _size(sample)))
        if not sampled or not rows:
            return None
        return _extrapolate(context, settings, states, Sampled(sampled / rows, seconds, known))


def _is_measured(context: RunContext, unit: Unit) -> bool:
    """Return whether the tables of measuring and matching are current, here or in the run to reuse."""
    settings, tables = MeasureSettings.of(context), context.unit_tables(unit)
    keys = {name: settings.key(name, unit) for name in settings.tables}
    if context.recipe.match:
        keys["matches"] = MatchSettings.of(context).key(keys["samples"])
    return all(tables.would_be_current(name, key) for name, key in keys.items())


def _choose(context: RunContext, units: Sequence[Unit]) -> list[Unit]:
    """Return units spread evenly over the pool, until there is enough."""
    count = min(_MAX_UNITS, len(units))
    chosen: list[Unit] = []
    for i in range(count):
        chosen.append(units[(2 * i + 1) * len(units) // (2 * count)])
        rows = sum(part.rows or 0 for unit in chosen for part in unit.parts)
        if _size(chosen) > _BYTES if context.pool.images else rows > _ROWS:
            break
    return chosen


def _size(units: Sequence[Unit]) -> int:
    return sum(part.size for unit in units for part in unit.parts)


def _extrapolate(context: RunContext, settings: DecideSettings, states: list[UnitState], sample: Sampled) -> Estimate:
    fraction = sample.fraction
    codes = Counter(int(code) for state in states for code in state.verdicts)
    verdicts = {s.name: codes[s.code] / fraction for s in context.recipe.stages(True) if codes[s.code]}
    inclusions = _inclusions(settings, states, fraction)
    kept = [float(inclusion.sum()) for inclusion in inclusions]
    alive = codes[CODES[KEPT]]
    verdicts.pop(KEPT, None)
    if context.recipe.balance:
        verdicts[BALANCE] = (alive - sum(kept)) / fraction
    verdicts[KEPT] = sum(kept) / fraction
    sampled = sum(codes.values())
    shares = [k / max(1, len(state.verdicts)) for k, state in zip(kept, states, strict=True)]
    share = sum(kept) / sampled
    scatter = (
        np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.sqrt(share * (1 - share) / sampled)
    )
    drawing = sum(float((inclusion * (1 - inclusion)).sum()) for inclusion in inclusions) / fraction
    sampling = (float(scatter) * sampled / fraction) ** 2 * (1 - fraction)  # none where all was sampled
    sizes = [_bytes(settings.tables(state.unit), state) for state in states] if context.pool.images else [0]
    return Estimate(
        units=len(states),
        sampled=sampled,
        rows=round(sampled / fraction),
        verdicts=verdicts,
        error=float(np.sqrt(sampling + drawing)),
        seconds=sample.seconds / fraction,
        bytes=round(sum(sizes) / fraction * (sum(kept) / alive if alive else 0)),
        requests=_estimate_requests(context, settings, states, inclusions, sample) if context.recipe.captions else [],
    )


def _estimate_requests(
    context: RunContext,
    settings: DecideSettings,
    states: list[UnitState],
    inclusions: list[F64],
    sample: Sampled,
) -> list[EstimatedRequests]:
    """Return requests over the whole pool, by the prompts of the sample's rows, each as likely as it is kept."""
    captioning = CaptionSettings.of(context)
    captions = captioning.captions
    counts = None
    if context.recipe.match:
        counts = (count_survivors(settings, states) / sample.fraction).astype(np.int64)
    found = {(task.kind, task.section.engine): np.zeros(4) for task in captions.tasks}
    for state, inclusion in zip(states, inclusions, strict=True):
        alive = np.flatnonzero(state.alive)
        some = alive[:_PROMPTS]
        scale = len(alive) / max(1, len(some))
        tables = context.unit_tables(state.unit)
        rows = Rows.of(tables, some, counts, inclusion[:_PROMPTS])
        rows = replace(rows, sources=rows.column("caption"))  # as long as captions are, for want of better
        likely = dict(zip(rows.column("uid").to_pylist(), (scale * rows.probability).tolist(), strict=True))
        for task in captions.tasks:
            requests = make_requests(captioning, tables, task, rows)
            found[task.kind, task.section.engine] += _weigh(
                requests, likely, _answered(requests, context.engine_ids[task.section.engine], sample.known)
            )
    estimated = []
    for (kind, engine), sums in found.items():
        answered, requests, tokens_in, tokens_out = (sums / sample.fraction).tolist()
        cost = captions.engines[engine].price.cost(tokens_in, tokens_out)
        estimated.append(EstimatedRequests(kind, engine, answered, requests, tokens_in, tokens_out, cost))
    return estimated


def _answered(requests: Sequence[Request], model: str, known: Sequence[Index]) -> Sequence[bool]:
    """Return which requests have an answer there."""
    answered = np.zeros(len(requests), np.bool_)
    digests = [request.digest(model) for request in requests] if known else []
    for index in known:
        answered |= index.holds(digests)
    return [bool(one) for one in answered]


def _weigh(requests: Sequence[Request], likely: Mapping[str, float], answered: Sequence[bool]) -> F64:
    """Return requests that are answered and that are not, tokens in and out of these, as likely as their rows are kept."""
    total = np.zeros(4)
    for request, there in zip(requests, answered, strict=True):
        text = len(request.prompt or "") + sum(len(message.text) for message in request.messages)
        weights = [1, 0, 0, 0] if there else [0, 1, text / _CHARACTERS, request.sampling.max_tokens]
        total += likely[request.uid] * np.array(weights)
    return total


def _inclusions(settings: DecideSettings, states: list[UnitState], fraction: float) -> list[F64]:
    """Return the probability that balancing keeps each row that is still in, of each unit."""
    target = settings.balance
    if target is None or settings.scheme is None:
        return [np.ones(int(state.alive.sum())) for state in states]
    entries, scheme = settings.entries.table, settings.scheme
    counts = count_survivors(settings, states)
    pool_counts = np.rint(counts / fraction).astype(np.int64)
    lists = [decisions.alive_matches(settings, state) for state in states]

    def inclusions(t: int) -> list[F64]:
        limits = scheme.limits(t, pool_counts, entries) * fraction
        return [balance.inclusion_probability(matches, limits / np.maximum(counts, limits)) for matches in lists]

    t, highest = target.t or 1, scheme.highest(pool_counts, entries)
    if target.rows is not None and fraction == 1:
        together = pa.concat_arrays(lists)
        t = solve_t(highest, target.rows, lambda ts: decisions.expected_rows(settings, together, counts, ts))
        return inclusions(t)
    while target.rows is not None and t < highest:  # the largest t that gives at most the target
        middle = (t + highest + 1) // 2
        expected = sum(float(pi.sum()) for pi in inclusions(middle))
        t, highest = (middle, highest) if expected <= target.rows * fraction else (t, middle - 1)
    return inclusions(t)


def _bytes(tables: UnitTables, state: UnitState) -> float:
    """Return the bytes of the images of the rows still in."""
    sizes = tables.read("samples", ["bytes"])["bytes"].to_numpy().astype(np.float64)
    return float(np.nansum(sizes[state.alive]))
