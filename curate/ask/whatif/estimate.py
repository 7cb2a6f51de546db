"""What a run will yield and cost, estimated before it from a few whole units, measured and decided as the run would.

Entry counts grow with the pool, so a sample of fraction f is balanced with counts that are its own by f.
Duplicates are only found within the sample, so fewer than there are. The error is that of cluster sampling over
the units where there are several, else that of the rows, and that of a run's draws.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ask.whatif.expectation import Expectation, expect, solve_t
from curate.ask.whatif.survivors import DecidedRows, count_verdicts
from curate.base.errors import RunError
from curate.base.numeric.arrays import F64
from curate.base.process import temporary_folder
from curate.base.schema import BALANCE, FAILED, KEPT, MISSING_REASONS, OK, SAMPLE
from curate.base.wording import next_size
from curate.captions.rows import Rows, make_requests
from curate.captions.settings import CaptionSettings
from curate.decide.apply_rules import Rules
from curate.decide.decontamination import write_evaluation
from curate.decide.deduplicate import deduplicate
from curate.decide.settings import DecideSettings
from curate.llm.cache import Index, index_answers
from curate.llm.engine import Request
from curate.match.steps import match
from curate.match.unit import MatchSettings
from curate.measure.settings import MeasureSettings
from curate.measure.steps import measure
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading
from curate.publish.audit import PublishSettings, allow
from curate.publish.forget.steps import apply_blocklist
from curate.recipe.deciding import Sample
from curate.run.context import RunContext
from curate.run.in_process import InProcessUnits
from curate.store.forgotten import Record
from curate.store.layout import METADATA_FILE
from curate.store.store import RunStore

_BYTES, _ROWS = 32 << 20, 50_000  # how much is measured, about, in whole units: seconds, or minutes with a large model
_PROMPTS = 1000  # rows of a unit whose prompts are looked at
_CHARACTERS = 4.0  # of a token, about, in English


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
    rows: int  # of the pool
    is_counted: bool  # whether they are known: for Parquet, and where all is measured or in the sample
    verdicts: dict[str, float]  # expected rows of the pool per rule, `balance` and `kept` included
    error: float  # one standard error of the kept rows
    seconds: float  # of one core, to measure and match what is not current of the pool, here or in the run to reuse
    bytes: int  # of the kept samples' images, where there are images
    requests: list[EstimatedRequests]  # by kind and engine
    t: int | None  # of balance, from the recipe or solved; None without balance
    next_size: str  # what t + 1 gives, see `wording.next_size`
    warnings: list[str]  # why the run would probably end with an error


def estimate(
    context: RunContext, units: Sequence[Unit], metadata: pa.Table | None, record: Record | None = None
) -> Estimate | None:
    """Measure a few units in a temporary folder and extrapolate. `record`: what is blocked.

    Nothing is downloaded for it: of what a run downloads, units count whose files are there. None where there are none.
    """
    rows = context.pool.rows if context.pool.rows is not None else _measured_rows(context, units)
    context, usable = _fetched(context, units)
    sample = _choose(context, usable)
    if not sample:
        return None
    left = _size([unit for unit in units if not _is_measured(context, unit)]) / max(1, _size(units))
    folders = [folder for folder in (context.store, context.reuse) if folder]
    known = [index_answers(folder) for folder in folders] if context.recipe.captions else []
    with temporary_folder() as aside:
        # Where all units are alike, their time is that of what the run to reuse does not have: it gives the rest
        context = replace(context, store=RunStore(aside), reuse=context.reuse if left in (0, 1) else None)
        if metadata is not None:
            context.store.write_parquet(METADATA_FILE, metadata)
        if context.recipe.dedup.against:
            write_evaluation(context.store, context.recipe, MeasureSettings.of(context).signals)
        if record is not None:
            record.write(context.store)
        began = time.process_time()
        measured = InProcessUnits(sample, context)
        measure(measured, context)
        if context.recipe.match:
            match(measured, context)
        if context.blocklist_key:
            apply_blocklist(measured, PublishSettings.of(context))
        seconds = (time.process_time() - began) * left
        survivors = _decide(measured, context)
        sampled = sum(len(state.verdicts) for state in survivors.states)
        is_counted = rows is not None or len(sample) == len(units)
        if rows is None:
            rows = round(sampled * _size(units) / max(1, _size(sample)))
        if not sampled or not rows:
            return None
        fraction = sampled / rows
        survivors = replace(survivors, counts=np.rint(survivors.counts / fraction).astype(np.int64))
        if (taken := survivors.recipe.sample) is not None:
            smaller = taken.model_copy(update={"rows": round(taken.rows * fraction)})
            survivors = replace(survivors, recipe=survivors.recipe.model_copy(update={"sample": smaller}))
        found, larger, unreached = _balance(survivors, fraction)
        verdicts = _verdicts(survivors, found, fraction, taken)
        return Estimate(
            units=len(sample),
            sampled=sampled,
            rows=rows,
            is_counted=is_counted,
            verdicts=verdicts,
            error=0.0 if verdicts.get(SAMPLE) else _error(survivors, found, fraction),  # a sample has its size
            seconds=seconds / fraction,
            bytes=_bytes(survivors, found, fraction) if context.pool.has_images else 0,
            requests=_requests(context, survivors, found, known, fraction) if context.recipe.captions else [],
            t=found.t,
            next_size=larger,
            warnings=[*_too_many_failed(survivors), *unreached],
        )


def _decide(units: InProcessUnits, context: RunContext) -> DecidedRows:
    """Return the rows of units that are left before the last choice."""
    settings = DecideSettings.of(context)
    rules = Rules(units, settings)
    rules.apply()
    deduplicate(units, settings)
    rules.apply_later()
    return DecidedRows.of(units, context.recipe, settings, rules)


def _fetched(context: RunContext, units: Sequence[Unit]) -> tuple[RunContext, Sequence[Unit]]:
    """Return the units that can be read without fetching anything, and the context whose sources read them where they are."""
    if not any(map(find_downloading, context.sources)):
        return context, units
    sources, found = [], []
    for source in context.sources:
        of_source = [unit for unit in units if unit.source == source.name]
        parts = [part for unit in of_source for part in unit.parts]
        kind = find_downloading(source)
        places = kind.fetched(source, parts) if kind else [(source, frozenset(parts))]
        at, whole = max(
            ((at, [unit for unit in of_source if there.issuperset(unit.parts)]) for at, there in places),
            key=lambda place: len(place[1]),
        )
        sources.append(at)
        found += whole
    return replace(context, recipe=context.recipe.model_copy(update={"input": tuple(sources)})), found


def _is_measured(context: RunContext, unit: Unit) -> bool:
    """Return whether the tables of measuring and matching are current, here or in the run to reuse."""
    settings, tables = MeasureSettings.of(context), context.unit_tables(unit)
    keys = {name: settings.key(name, unit) for name in settings.tables}
    if context.recipe.match:
        keys["matches"] = MatchSettings.of(context).key(keys["samples"])
    return all(tables.would_be_current(name, key) for name, key in keys.items())


def _measured_rows(context: RunContext, units: Sequence[Unit]) -> int | None:
    """Return the rows of the units, where each is measured here or in the run to reuse."""
    settings, rows = MeasureSettings.of(context), 0
    for unit in units:
        key = settings.key("samples", unit)
        measured = next((tables for tables in context.unit_tables(unit).places if tables.has("samples", key)), None)
        if measured is None:
            return None
        rows += measured.rows()
    return rows


def _choose(context: RunContext, units: Sequence[Unit]) -> list[Unit]:
    """Return units spread evenly over the pool, as many as are enough: all of a small pool."""
    rows = sum(part.rows or 0 for unit in units for part in unit.parts)
    size, enough = (_size(units), _BYTES) if context.pool.has_images else (rows, _ROWS)
    count = min(len(units), ceil(enough * len(units) / max(1, size)))
    return [units[(2 * i + 1) * len(units) // (2 * count)] for i in range(count)]


def _size(units: Sequence[Unit]) -> int:
    return sum(part.size for unit in units for part in unit.parts)


def _balance(survivors: DecidedRows, fraction: float) -> tuple[Expectation, str, list[str]]:
    """Return what balancing keeps of the sample, what the next t keeps of the pool, and warnings; entries are counted over the pool."""
    target = survivors.recipe.balance
    rows = target.rows if target else None
    if target and rows and fraction < 1:
        target = target.model_copy(update={"rows": round(rows * fraction)})
    try:
        solution = solve_t(survivors, target)
        found = expect(survivors, solution.t if solution else None)
        if solution is None or solution.above is None or rows is None:
            return found, "", []
        return found, next_size(rows, solution.t, found.rows / fraction, solution.above / fraction), []
    except RunError:
        if fraction == 1 or rows is None:
            raise
        found = expect(survivors, 1)
        smallest = f"even t = 1, the smallest, keeps about {found.rows / fraction:,.0f} rows"
        out_of_reach = (
            f"balance.rows {rows:,} is probably out of reach: {smallest}, and the run would end with an error"
        )
        return found, "", [out_of_reach]


def _too_many_failed(survivors: DecidedRows) -> Iterator[str]:
    """Yield a warning where more rows of the sample failed, or are missing, than the recipe allows: see `publish.audit.check_damage`."""
    recipe = survivors.recipe
    tables = (survivors.settings.tables(state.unit).read("samples", ["status"]) for state in survivors.states)
    status = pa.concat_tables(tables)["status"]
    missing = pc.sum(pc.is_in(status, pa.array(MISSING_REASONS))).as_py() or 0
    failed = pc.sum(pc.not_equal(status, OK)).as_py() - missing
    for name, what, bad, rows, limit in (
        ("max_failed", "could not be read", failed, len(status) - missing, recipe.max_failed),
        ("max_missing", "were never downloaded", missing, len(status), recipe.max_missing),
    ):
        if bad > limit * rows:
            how = f"the run would probably end with an error; {allow(name, bad, rows)} allows it"
            yield f"{bad / rows:.1%} of the samples {what}, and {name} is {limit}: {how}"


def _verdicts(survivors: DecidedRows, found: Expectation, fraction: float, taken: Sample | None) -> dict[str, float]:
    """Return rows of the pool by stage; `taken` is the recipe's own sample."""
    counts = count_verdicts(survivors.states, list(survivors.recipe.rules))
    verdicts = {stage.name: counts[stage.name] / fraction for stage in survivors.recipe.stages(True)}
    kept = found.rows / fraction if taken is None else min(counts[KEPT] / fraction, float(taken.rows))
    always = (FAILED, *survivors.recipe.rules)
    verdicts = {
        name: n for name, n in verdicts.items() if (n or name in always) and name not in (BALANCE, SAMPLE, KEPT)
    }
    for stage, section in ((BALANCE, survivors.recipe.balance), (SAMPLE, survivors.recipe.sample)):
        if section:
            verdicts[stage] = counts[KEPT] / fraction - kept
    return {**verdicts, KEPT: kept}


def _error(survivors: DecidedRows, found: Expectation, fraction: float) -> float:
    sizes = np.array([len(state.verdicts) for state in survivors.states])
    shares = np.array([pi.sum() for pi in found.inclusion]) / np.maximum(1, sizes)
    share = found.rows / sizes.sum()
    if len(shares) > 1:
        scatter = np.std(shares, ddof=1) / np.sqrt(len(shares))
    else:
        scatter = np.sqrt(share * (1 - share) / sizes.sum())
    sampling = (scatter * sizes.sum() / fraction) ** 2 * (1 - fraction)  # none where all was sampled
    return float(np.sqrt(sampling + found.error**2 / fraction))


def _bytes(survivors: DecidedRows, found: Expectation, fraction: float) -> int:
    total = 0.0
    for state in survivors.states:
        sizes = survivors.settings.tables(state.unit).read("samples", ["bytes"])["bytes"].to_numpy().astype(np.float64)
        total += float(np.nansum(sizes[state.alive]))
    return round(total / fraction * found.rows / max(1, sum(map(len, found.inclusion))))


def _requests(
    context: RunContext, survivors: DecidedRows, found: Expectation, known: Sequence[Index], fraction: float
) -> list[EstimatedRequests]:
    """Return requests over the whole pool, by the prompts of the sample's rows, each as likely as it is kept."""
    captioning = CaptionSettings.of(context)
    captions = captioning.captions
    counts = survivors.counts if context.recipe.match else None
    sums = {(task.kind, task.section.engine): np.zeros(4) for task in captions.tasks}
    for state, inclusion in zip(survivors.states, found.inclusion, strict=True):
        alive = np.flatnonzero(state.alive)
        some = alive[:_PROMPTS]
        scale = len(alive) / max(1, len(some))
        tables = context.unit_tables(state.unit)
        rows = Rows.of(tables, some, counts, inclusion[:_PROMPTS])
        rows = replace(rows, sources=rows.column("caption"))  # as long as captions are, for want of better
        likely = dict(zip(rows.column("uid").to_pylist(), (scale * rows.probability).tolist(), strict=True))
        for task in captions.tasks:
            requests = make_requests(captioning, tables, task, rows)
            digests = [request.digest(context.engine_ids[task.section.engine]) for request in requests]
            answered = np.any([index.holds(digests) for index in known], axis=0)
            sums[task.kind, task.section.engine] += _weigh(requests, likely, answered.tolist())
    estimated = []
    for (kind, engine), total in sums.items():
        there, missing, tokens_in, tokens_out = (total / fraction).tolist()
        cost = captions.engines[engine].price.cost(tokens_in, tokens_out)
        estimated.append(EstimatedRequests(kind, engine, there, missing, tokens_in, tokens_out, cost))
    return estimated


def _weigh(requests: Sequence[Request], likely: Mapping[str, float], answered: Sequence[bool]) -> F64:
    """Return requests that are answered and that are not, tokens in and out of these, as likely as their rows are kept."""
    total = np.zeros(4)
    for request, there in zip(requests, answered, strict=True):
        text = len(request.prompt or "") + sum(len(message.text) for message in request.messages)
        weights = [1, 0, 0, 0] if there else [0, 1, text / _CHARACTERS, request.sampling.max_tokens]
        total += likely[request.uid] * np.array(weights)
    return total
