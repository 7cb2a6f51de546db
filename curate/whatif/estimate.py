"""What a run will yield and cost, estimated before it from a few whole units, measured and decided as the run would.

Entry counts grow with the pool, so a sample of fraction f is balanced with t·f: p = t/count stays what it would be.
Duplicates are only found within the sample, so fewer than there are. The error given is that of cluster sampling over
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
from curate.decide import balance
from curate.decide import state as ballot
from curate.decide.evaluation import write_evaluation
from curate.decide.local import apply_rules, deduplicate
from curate.decide.state import UnitState
from curate.engines.request import Request
from curate.forget.block import block
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.metadata.unit import MatchSettings, match_unit
from curate.pool.plan import Unit
from curate.run.context import RunContext
from curate.schema import BALANCE, CODES, KEPT, run_stages
from curate.store.forgotten import Record
from curate.store.layout import METADATA_FILE
from curate.store.store import RunStore

_BYTES, _ROWS = 32 << 20, 50_000  # how much is measured, about
_PROMPTS = 1000  # rows of a unit whose prompts are looked at
_CHARACTERS = 4.0  # of a token, about, in English
_MOST = 4  # units
_MEASURED = ("samples", "scores", "embeddings", "members", "matches")


@dataclass(frozen=True)
class Asked:
    """What one engine would be asked for one kind.

    Attributes:
        kind, engine: for what, and by its name in the recipe.
        answered: requests that have an answer in the run, or in the one to reuse; of fused texts that is not known before.
        requests: those that have none.
        tokens_in: of their prompts, an image's not counted.
        tokens_out: of their answers, at most.
        cost: by the engine's price.
    """

    kind: str
    engine: str
    answered: float
    requests: float
    tokens_in: float
    tokens_out: float
    cost: float


@dataclass(frozen=True)
class Estimate:
    """What the sample says of the pool.

    Attributes:
        units: how many were measured.
        sampled: rows of theirs.
        rows: of the pool; exact for Parquet.
        verdicts: expected rows of the pool per rule, `balance` and `kept` included.
        error: one standard error of the kept rows.
        seconds: of one core, to measure and match what does not stand of the pool, here or in the run to reuse.
        bytes: of the kept samples' images, where there are images.
        asked: what engines would be asked.
    """

    units: int
    sampled: int
    rows: int
    verdicts: dict[str, float]
    error: float
    seconds: float
    bytes: int
    asked: list[Asked]


def estimate(
    context: RunContext, units: Sequence[Unit], metadata: pa.Table | None, record: Record | None = None
) -> Estimate | None:
    """Measures a few units in a temporary folder and extrapolates; None for an empty pool. `record`: of what is blocked."""
    sample = _choose(context, units)
    if not sample:
        return None
    left = _size([unit for unit in units if not context.would_be_current(unit, *_MEASURED)]) / max(1, _size(units))
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
            write_evaluation(context)
        if record is not None:
            record.write(context.store)
        began = time.process_time()
        for unit in sample:
            measure_unit(MeasureSettings.of(context), unit, context.unit_tables(unit))
            if context.recipe.match:
                match_unit(MatchSettings.of(context), context.unit_tables(unit))
        if context.blocklist_key:
            block(context, sample)
        seconds = (time.process_time() - began) * left
        ballots = deduplicate(context, apply_rules(context, sample))
        sampled = sum(len(b.verdicts) for b in ballots)
        rows = context.pool.rows
        if rows is None:
            rows = round(sampled * _size(units) / max(1, _size(sample)))
        if not sampled or not rows:
            return None
        return _extrapolate(context, ballots, sampled / rows, seconds, known)


def _choose(context: RunContext, units: Sequence[Unit]) -> list[Unit]:
    """Units spread evenly over the pool, until there is enough."""
    most = min(_MOST, len(units))
    chosen: list[Unit] = []
    for i in range(most):
        chosen.append(units[(2 * i + 1) * len(units) // (2 * most)])
        rows = sum(part.rows or 0 for unit in chosen for part in unit.parts)
        if _size(chosen) > _BYTES if context.pool.images else rows > _ROWS:
            break
    return chosen


def _size(units: Sequence[Unit]) -> int:
    return sum(part.size for unit in units for part in unit.parts)


def _extrapolate(
    context: RunContext, ballots: list[UnitState], fraction: float, seconds: float, known: Sequence[Index]
) -> Estimate:
    codes = Counter(int(code) for b in ballots for code in b.verdicts)
    verdicts = {s.name: codes[s.code] / fraction for s in run_stages(context.recipe, True) if codes[s.code]}
    inclusions = _inclusions(context, ballots, fraction)
    kept = [float(inclusion.sum()) for inclusion in inclusions]
    alive = codes[CODES[KEPT]]
    verdicts.pop(KEPT, None)
    if context.recipe.balance:
        verdicts[BALANCE] = (alive - sum(kept)) / fraction
    verdicts[KEPT] = sum(kept) / fraction
    sampled = sum(codes.values())
    shares = [k / max(1, len(b.verdicts)) for k, b in zip(kept, ballots, strict=True)]
    share = sum(kept) / sampled
    spread = (
        np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.sqrt(share * (1 - share) / sampled)
    )
    draws = sum(float((inclusion * (1 - inclusion)).sum()) for inclusion in inclusions) / fraction
    sampling = (float(spread) * sampled / fraction) ** 2 * (1 - fraction)  # none where all was sampled
    sizes = [int(np.nansum(_bytes(context, b)[b.alive])) for b in ballots] if context.pool.images else [0]
    return Estimate(
        units=len(ballots),
        sampled=sampled,
        rows=round(sampled / fraction),
        verdicts=verdicts,
        error=float(np.sqrt(sampling + draws)),
        seconds=seconds / fraction,
        bytes=round(sum(sizes) / fraction * (sum(kept) / alive if alive else 0)),
        asked=_asked(context, ballots, inclusions, fraction, known) if context.recipe.captions else [],
    )


def _asked(
    context: RunContext,
    ballots: list[UnitState],
    inclusions: list[balance.F64],
    fraction: float,
    known: Sequence[Index],
) -> list[Asked]:
    """Requests over the whole pool, by the prompts of the sample's rows, each as likely as it is kept."""
    settings = CaptionSettings.of(context)
    captions = settings.captions
    counts = None
    if context.recipe.match:
        counts = (np.sum([ballot.count_entries(context, b.unit, b) for b in ballots], axis=0) / fraction).astype(
            np.int64
        )
    found = {(task.kind, task.section.engine): np.zeros(4) for task in captions.tasks}
    for b, inclusion in zip(ballots, inclusions, strict=True):
        alive = np.flatnonzero(b.alive)
        some = alive[:_PROMPTS]
        scale = len(alive) / max(1, len(some))
        tables = context.unit_tables(b.unit)
        rows = Rows.of(tables, some, counts, inclusion[:_PROMPTS])
        rows = replace(rows, sources=rows.column("caption"))  # as long as captions are, for want of better
        likely = dict(zip(rows.column("uid").to_pylist(), (scale * rows.probability).tolist(), strict=True))
        for task in captions.tasks:
            requests = make_requests(settings, tables, task, rows)
            found[task.kind, task.section.engine] += _weigh(
                requests, likely, _answered(requests, context.engine_ids[task.section.engine], known)
            )
    asked = []
    for (kind, engine), sums in found.items():
        answered, requests, tokens_in, tokens_out = (sums / fraction).tolist()
        cost = captions.engines[engine].price.cost(tokens_in, tokens_out)
        asked.append(Asked(kind, engine, answered, requests, tokens_in, tokens_out, cost))
    return asked


def _answered(requests: Sequence[Request], model: str, known: Sequence[Index]) -> Sequence[bool]:
    """Which requests have an answer there."""
    answered = np.zeros(len(requests), np.bool_)
    digests = [request.digest(model) for request in requests] if known else []
    for index in known:
        answered |= index.holds(digests)
    return [bool(one) for one in answered]


def _weigh(requests: Sequence[Request], likely: Mapping[str, float], answered: Sequence[bool]) -> balance.F64:
    """Requests that are answered and that are not, tokens in and out of these, as likely as their rows are kept."""
    total = np.zeros(4)
    for request, there in zip(requests, answered, strict=True):
        text = len(request.prompt or "") + sum(len(message.text) for message in request.messages)
        own = [1, 0, 0, 0] if there else [0, 1, text / _CHARACTERS, request.sampling.max_tokens]
        total += likely[request.uid] * np.array(own)
    return total


def _inclusions(context: RunContext, ballots: list[UnitState], fraction: float) -> list[balance.F64]:
    """The probability that balancing keeps each row that is still in, of each unit."""
    wished = context.recipe.balance
    if wished is None:
        return [np.ones(int(b.alive.sum())) for b in ballots]
    counts = np.sum([ballot.count_entries(context, b.unit, b) for b in ballots], axis=0)
    lists = [ballot.alive_matches(context, b) for b in ballots]
    if wished.t is not None:
        t = wished.t * fraction
    elif fraction == 1:
        t = float(balance.solve_t(counts, pa.concat_arrays(lists), wished.rows or 0))
    else:
        t, most = 0.0, float(max(1, counts.max(initial=1)))
        for _ in range(50):  # halving: the sample's t is no integer
            middle = (t + most) / 2
            expected = sum(float(balance.inclusion(m, _scaled(counts, middle)).sum()) for m in lists)
            t, most = (middle, most) if expected <= (wished.rows or 0) * fraction else (t, middle)
    return [np.asarray(balance.inclusion(matches, _scaled(counts, t)), np.float64) for matches in lists]


def _scaled(counts: ballot.I64, t: float) -> balance.F64:
    return np.asarray(t / np.maximum(counts, t) if t > 0 else np.zeros(len(counts)))


def _bytes(context: RunContext, b: UnitState) -> balance.F64:
    return np.asarray(context.read("samples", b.unit, ["bytes"])["bytes"].to_numpy(), np.float64)
