"""Estimate what a run will yield and cost from a small sample of rows, measured and decided as the run would.

Entry counts grow with the pool, so a sample of fraction f is balanced with its counts divided by f. Duplicates, and
duplicate captions of an image, are detected only within the sample, so the estimate has too few. The error combines
cluster sampling over units, or over rows if there is one unit, with a run's draws.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from math import ceil, inf, log2
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.ask.whatif.surviving import DecidedRows, Expectation, choose, count_copies, count_verdicts, expect
from curate.base.compiling import interpreting, is_compiled
from curate.base.errors import RecipeError
from curate.base.meter import METER
from curate.base.process import temporary_folder
from curate.base.schema import MISSING_REASONS, OK
from curate.base.stages import CODES, DUPLICATE, FAILED, KEPT, UNMATCHED
from curate.captions.rows import Rows, make_requests
from curate.captions.settings import CaptionSettings
from curate.decide.apply_rules import apply_rules
from curate.decide.decontamination import write_evaluation
from curate.decide.dedup.groups import MAX_NODES
from curate.decide.deduplicate import deduplicate
from curate.decide.draw.selection import OutOfReach
from curate.decide.settings import DecideSettings
from curate.llm.cache import Index, index_answers
from curate.match import kernel
from curate.match.unit import MatchSettings, match
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading, find_format
from curate.publish.audit import PublishSettings, row_limits
from curate.publish.forget.block import apply_blocklist
from curate.read import text
from curate.recipe.recipe import REFERENCE, Recipe
from curate.relate.steps import relate
from curate.run.context import RunContext
from curate.run.in_process import InProcessUnits
from curate.run.units import Answer
from curate.store.forgotten import Record
from curate.store.layout import METADATA_FILE
from curate.store.store import RunStore

# CPU seconds to decide a row and to emit an image; to start and publish any run; to compile kernels, and those of
# `match`; and per interpreted row
_DECIDED, _EMITTED, _START, _COMPILING, _COMPILING_MATCH, _INTERPRETED = 1e-5, 1.2e-4, 3.0, 5.0, 18.0, 0.0015
_BYTES, _ROWS = 32 << 20, 50_000  # about how much is measured at most
# CPU seconds to measure a sample, with compiled and interpreted kernels; min rows per part; max interpreted entries
_SECONDS, _COLD_SECONDS, _PART_ROWS, _COLD_ENTRIES = 1.5, 0.8, 16, 20_000
_PROMPTS = 1000  # rows per unit whose prompts are counted
_CHARACTERS = 4.0  # per token, about, in English
_WITHOUT_SPACES = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]{4}"
_WORDS = re.compile(r"\bwords\b", re.IGNORECASE)
_SHARE = 0.01  # share of captions in such scripts that triggers a warning


Watch = Callable[[RunStore, int], AbstractContextManager[None]]  # progress for a folder and its number of units


class NotCompiledError(RecipeError):
    """The estimate would have to wait for kernels to compile."""


class EstimatedRequests(NamedTuple):
    """The requests that one engine would get for one kind."""

    kind: str  # what the requests are for, and the engine's name in the recipe
    engine: str
    answered: float  # requests answered in the run or the one to reuse; unknown for fused texts
    requests: float  # requests without an answer
    tokens_in: float  # in their prompts, without images
    tokens_out: float  # in their answers, at most
    cost: float  # at the engine's price
    has_images: bool  # whether some include an image


class EstimateWarning(NamedTuple):
    """Why the run may fail, or select fewer rows than requested; `plan.txt` has a text for each kind."""

    kind: Literal["too_many_failed", "without_spaces", "nothing_kept", "too_many_members", "out_of_reach", "shortfall"]
    facts: Mapping[str, object]


class Estimate(NamedTuple):
    """The estimate for the pool from a sample."""

    units: int  # how many were measured
    sampled: int  # rows measured
    rows: int  # in the pool
    is_counted: bool  # whether `rows` is exact: for Parquet, and if all is measured or in the sample
    verdicts: dict[str, float]  # expected rows of the pool per rule, `balance` and `kept` included
    error: float  # one standard error of the kept rows
    copies: float | None  # kept rows, counting repeats; None if none repeats
    seconds: float  # of one core, to measure and match what is not current, here or in the run to reuse
    compiling: float  # seconds of one core to compile kernels, once per run
    bytes: int | None  # of the kept samples' images; None without images, or if no size is known
    requests: list[EstimatedRequests]  # by kind and engine
    chosen: str  # the selection's choice as text, such as t = 20,000; may be empty
    warnings: list[EstimateWarning]

    @property
    def core_seconds(self) -> float:
        """Return the CPU seconds of the whole run, within a factor of 2."""
        work = _DECIDED * self.rows + (0 if self.bytes is None else _EMITTED * self.verdicts[KEPT])
        return self.seconds + self.compiling + _START + work


def estimate(
    context: RunContext,
    units: Sequence[Unit],
    metadata: pa.Table | None,
    record: Record | None = None,
    rows: int | None = None,
    watch: Watch = lambda *_: nullcontext(),
) -> Estimate | None:
    """Measure a few rows in a temporary folder and extrapolate. `record`: the blocklist; `watch` shows progress.

    `rows` is the size of the pool, if the units are a part of it; None: the size of these units. Downloads nothing: if
    a run downloads, only units whose files exist count. Returns None without units. Raises NotCompiledError.
    """
    pool_rows = rows or (context.pool.rows if context.pool.rows is not None else _measured_rows(context, units))
    context, usable = fetched(context, units)
    chosen_units = _choose(context, usable)
    if not chosen_units:
        return None
    share = share_left(context, units)
    is_limited = share > 0 and all(map(partial(_can_limit, context), chosen_units))
    is_interpreted = share > 0 and _interprets(context, is_limited, metadata)
    answers = [index_answers(folder) for folder in (context.store, context.reuse) if folder and context.recipe.captions]
    with temporary_folder() as folder, interpreting(is_interpreted):
        # If no or all units are left, the time is that of the tables missing from the run to reuse.
        context = replace(context, store=RunStore(folder), reuse=context.reuse if share in (0, 1) else None)
        limit = (_COLD_SECONDS if is_interpreted else _SECONDS) if is_limited else 0.0
        _write_inputs(context, metadata, record)
        sample = _measure_sample(context, chosen_units, limit, watch)
        context = replace(context, share=sample.size / max(1, size_of(units)))
        surviving, seconds = _decide(context, sample)
        seconds *= share
        sampled = sum(len(state.verdicts) for state in surviving.states)
        is_all = sample.is_whole and len(chosen_units) == len(units)
        is_counted = rows is None and (pool_rows is not None or is_all)
        if pool_rows is None:
            pool_rows = round(sampled * size_of(units) / max(1, sample.size))
        if is_interpreted:
            seconds = max(seconds / 5, seconds - _INTERPRETED * sampled * share)
        if not sampled or not pool_rows:
            return None
        fraction = sampled / pool_rows
        surviving = replace(surviving, counts=np.rint(surviving.counts / fraction).astype(np.int64), fraction=fraction)
        expectation, chosen, unreached = _select(surviving)
        verdicts = _verdicts(surviving, expectation)
        samples = _read_samples(surviving)
        return Estimate(
            units=sample.units,
            sampled=sampled,
            rows=pool_rows,
            is_counted=is_counted,
            verdicts=verdicts,
            error=_error(surviving, expectation),
            copies=count_copies(surviving, expectation) / fraction if context.recipe.repeats else None,
            seconds=seconds / fraction,
            compiling=(_COMPILING_MATCH if context.recipe.match else _COMPILING) if is_interpreted else 0.0,
            bytes=_bytes(surviving, expectation, samples["bytes"]),
            requests=_requests(context, surviving, expectation, answers) if context.recipe.captions else [],
            chosen=chosen,
            warnings=[*_warn(surviving, verdicts, samples), *unreached],
        )


def _read_samples(survivors: DecidedRows) -> pa.Table:
    tables = (survivors.settings.tables(state.unit) for state in survivors.states)
    return pa.concat_tables(table.read("samples", ["status", "caption", "bytes"]) for table in tables)


def share_left(context: RunContext, units: Sequence[Unit]) -> float:
    """Return the share of units, by size, left to measure: without tables here or in the run to reuse."""
    return size_of([unit for unit in units if not _is_measured(context, unit)]) / max(1, size_of(units))


def fetched(context: RunContext, units: Sequence[Unit]) -> tuple[RunContext, Sequence[Unit]]:
    """Return the units that can be read without a download, and a context whose sources read their downloaded files."""
    if not any(map(find_downloading, context.sources)):
        return context, units
    sources, fetched = [], []
    for source in context.sources:
        of_source = [unit for unit in units if unit.source == source.name]
        parts = [part for unit in of_source for part in unit.parts]
        kind = find_downloading(source)
        copies = kind.fetched(source, parts) if kind else [(source, frozenset(parts))]
        whole = [(copy, [unit for unit in of_source if files.issuperset(unit.parts)]) for copy, files in copies]
        fullest, complete = max(whole, key=lambda pair: len(pair[1]))
        sources.append(fullest)
        fetched += complete
    return replace(context, recipe=context.recipe.model_copy(update={"input": tuple(sources)})), fetched


def _is_measured(context: RunContext, unit: Unit) -> bool:
    """Return whether the tables of measuring and matching are current, here or in the run to reuse."""
    settings, tables = MeasureSettings.of(context), context.unit_tables(unit)
    keys = {name: settings.key(name, unit) for name in settings.tables}
    if context.recipe.match:
        keys["matches"] = MatchSettings.of(context).key(keys["samples"])
    return all(tables.find(name, key, by_footer=True) for name, key in keys.items())


def _measured_rows(context: RunContext, units: Sequence[Unit]) -> int | None:
    """Return the number of rows in the units, if each is measured here or in the run to reuse."""
    settings, rows = MeasureSettings.of(context), 0
    for unit in units:
        key = settings.key("samples", unit)
        measured = context.unit_tables(unit).find("samples", key, by_footer=True)
        if measured is None:
            return None
        rows += measured.rows()
    return rows


def _interprets(context: RunContext, is_limited: bool, metadata: pa.Table | None) -> bool:
    """Return whether to interpret kernels that are not compiled yet. Raises NotCompiledError for many rows."""
    kernels = [text.count_words]  # if these are compiled, all are
    if context.recipe.match:
        kernels.append(kernel.match_texts)
    if all(map(is_compiled, kernels)):
        return False
    if is_limited and (metadata is None or len(metadata) <= _COLD_ENTRIES):
        return True
    raise NotCompiledError("kernels are not compiled yet; a run or --measure N compiles them, in some 20 s")


def _write_inputs(context: RunContext, metadata: pa.Table | None, record: Record | None) -> None:
    if metadata is not None:
        context.store.write_parquet(METADATA_FILE, metadata)
    if context.recipe.dedup.against:
        write_evaluation(context.store, context.recipe, MeasureSettings.of(context).signals)
    if record is not None:
        record.write(context.store)


class _Sample(NamedTuple):
    """Rows measured and matched: their number of units, unread files, CPU seconds, and bytes of inputs."""

    measured: InProcessUnits
    units: int
    unread: Answer
    seconds: float
    size: float
    is_whole: bool  # whether the units were read completely


def _measure_sample(context: RunContext, units: Sequence[Unit], limit: float, watch: Watch) -> _Sample:
    """Measure and match more and more rows of these units until it takes about `limit` CPU seconds; 0: all rows.

    One-time loading for the first row does not count.
    """
    parts = [replace(unit, parts=(part,)) for unit in units for part in unit.parts]
    rows, first = 1, 0
    while True:
        count = min(len(parts), ceil(rows / _PART_ROWS))
        chosen = numbered = units
        if limit:
            limited = ((unit, replace(unit.parts[0], limit=ceil(rows / count))) for unit in spread(parts, count))
            chosen = [replace(unit, parts=(part,)) for unit, part in limited]
            numbered = [replace(unit, index=first + i) for i, unit in enumerate(chosen)]
        with watch(context.store, first + len(chosen)):  # earlier rounds have written `first` units
            began = time.process_time() - METER.compiling
            measured = InProcessUnits(numbered, context)
            unread = measure(measured, context)
            if context.recipe.match:
                match(measured, context)
            seconds = time.process_time() - METER.compiling - began
        size = sum(_size_read(context, unit) for unit in numbered)
        is_whole = not limit or (count == len(parts) and not any(_has_more(context, unit) for unit in numbered))
        if is_whole or (rows > 1 and seconds > limit / 2):
            return _Sample(measured, len({unit.index for unit in chosen}), unread, seconds, size, is_whole)
        rows *= 8 if rows == 1 else 2 ** int(log2(min(64, limit / seconds)))
        first += len(chosen)


def _decide(context: RunContext, sample: _Sample) -> tuple[DecidedRows, float]:
    """Decide a sample up to the selection; also return the CPU seconds to measure it, and to relate it to itself."""
    units, began = sample.measured, time.process_time() - METER.compiling
    if context.blocklist_key:
        apply_blocklist(units, PublishSettings.of(context))
    if context.recipe.relate.requested:
        relate(units, context, sample.unread)
    seconds = sample.seconds + time.process_time() - METER.compiling - began
    settings = DecideSettings.of(context)
    answers = apply_rules(units, settings)
    deduplicate(units, settings)
    return DecidedRows.of(units, settings, answers, context, context.recipe), seconds


def _can_limit(context: RunContext, unit: Unit) -> bool:
    """Return whether the size of the first rows in the unit's parts is known, relative to the unit."""
    source = next(source for source in context.sources if source.name == unit.source)
    return find_format(source).has_members or all(part.rows for part in unit.parts)


def _has_more(context: RunContext, unit: Unit) -> bool:
    """Return whether a part probably has rows beyond its limit."""
    limit = unit.parts[0].limit
    return limit is not None and limit <= context.unit_tables(unit).rows() and limit < (unit.parts[0].rows or inf)


def _size_read(context: RunContext, unit: Unit) -> float:
    """Return the bytes of a unit's measured rows, on the scale of `size_of`."""
    if not _has_more(context, unit):
        return size_of([unit])
    tables, [part] = context.unit_tables(unit), unit.parts
    if part.rows:
        return part.size * tables.rows() / part.rows
    members = tables.read("members", ["offset", "size"])
    ends = pc.add(*(pc.list_flatten(members[name]) for name in ("offset", "size")))
    return min(part.size, pc.max(ends).as_py() or part.size)


def _choose(context: RunContext, units: Sequence[Unit]) -> list[Unit]:
    """Return enough units for a sample, spread evenly over the pool; all units of a small pool."""
    rows = sum(part.rows or 0 for unit in units for part in unit.parts)
    size, enough = (size_of(units), _BYTES) if context.pool.has_images or not rows else (rows, _ROWS)
    count = min(len(units), ceil(enough * len(units) / max(1, size)))
    return spread(units, count)


def spread(units: Sequence[Unit], count: int) -> list[Unit]:
    """Return `count` units, spread evenly."""
    return [units[(2 * i + 1) * len(units) // (2 * count)] for i in range(count)]


def size_of(units: Sequence[Unit]) -> int:
    """Return the bytes of units, as stated by their inputs."""
    return sum(part.size for unit in units for part in unit.parts)


def _select(survivors: DecidedRows) -> tuple[Expectation, str, list[EstimateWarning]]:
    """Return what the selection keeps of the sample, its choice for the pool as text, and warnings."""
    recipe, selection, fraction = survivors.recipe, survivors.recipe.selection, survivors.fraction
    if selection is None:
        return expect(survivors, None), "", []
    key, section = selection
    try:
        choice = choose(survivors, scaled(recipe, fraction))
    except OutOfReach as error:
        if fraction == 1:
            raise
        kept = expect(survivors, error.choice)
        [(name, rows)] = recipe.selector.sizes_in(section).items()
        facts = {"key": f"{key}.{name}", "rows": rows, "nearest": error.nearest, "kept": kept.rows / fraction}
        return kept, kept.choice.label if kept.choice else "", [EstimateWarning("out_of_reach", facts)]
    assert choice is not None
    facts = {"shortfall": choice.shortfall(section), "is_of_sample": fraction < 1}
    warnings = [EstimateWarning("shortfall", facts)] if facts["shortfall"] else []
    return expect(survivors, choice), choice.say(section, fraction), warnings


def scaled(recipe: Recipe, fraction: float) -> Recipe:
    """Return the recipe with its selection's sizes scaled to a part of the pool; rounds down, since some are limits."""
    if recipe.selection:
        for name, rows in recipe.selector.sizes_in(recipe.selection[1]).items():
            recipe = _changed(recipe, [recipe.selector.key, *name.split(".")], int(rows * fraction + 1e-6))
    return recipe


def _changed(section: Any, keys: list[str], value: int) -> Any:
    inner = _changed(getattr(section, keys[0]), keys[1:], value) if keys[1:] else value
    return section.model_copy(update={keys[0]: inner})


def _warn(survivors: DecidedRows, expected: Mapping[str, float], samples: pa.Table) -> Iterator[EstimateWarning]:
    recipe = survivors.recipe
    statuses = Counter[Any](samples["status"].to_pylist())
    missing = Counter({status: rows for status, rows in statuses.items() if status in MISSING_REASONS})
    failed = statuses - missing - Counter({OK: statuses[OK]})
    limits = row_limits(recipe, failed.total(), missing.total(), statuses.total())
    for limit, reasons in zip(limits, (failed, missing), strict=True):  # as in `audit.check_damage`
        if limit.is_exceeded:
            yield EstimateWarning("too_many_failed", {"limit": limit, "reason": reasons.most_common(1)[0][0]})
    dropped = _count_without_spaces(survivors, samples["caption"])
    if dropped.total() > _SHARE * len(samples):
        facts = {"share": dropped.total() / len(samples), "rules": tuple(+dropped)}
        yield EstimateWarning("without_spaces", facts)
    counts = count_verdicts(survivors.states, recipe)
    if not counts[KEPT]:
        rule, rows = counts.most_common(1)[0]
        yield EstimateWarning("nothing_kept", {"rows": counts.total(), "rule": rule, "dropped": rows})
    members = expected.get(DUPLICATE, 0)
    if recipe.dedup.near and members > MAX_NODES:
        yield EstimateWarning("too_many_members", {"members": members, "limit": MAX_NODES})


def _count_without_spaces(survivors: DecidedRows, captions: pa.ChunkedArray) -> Counter[str]:
    """Return how many captions in scripts without spaces each rule or step that counts words drops."""
    rules = enumerate(survivors.recipe.rules.items())
    by_words = {i: name for i, (name, rule) in rules if isinstance(rule, str) and _WORDS.search(rule)}
    match = survivors.recipe.match
    by_words |= {CODES[UNMATCHED]: UNMATCHED} if match and match.mode == REFERENCE else {}
    is_such = pc.match_substring_regex(captions, _WITHOUT_SPACES).fill_null(False).to_numpy()
    verdicts = np.concatenate([state.verdicts for state in survivors.states])[is_such]
    return Counter({name: int((verdicts == code).sum()) for code, name in by_words.items()})


def _verdicts(survivors: DecidedRows, expectation: Expectation) -> dict[str, float]:
    recipe, fraction = survivors.recipe, survivors.fraction
    counts = count_verdicts(survivors.states, recipe)
    eligible, kept = counts[KEPT] / fraction, expectation.rows / fraction
    drawn, section = recipe.selection or (None, None)
    if drawn and expectation.is_uniform:  # a fixed size: exact, while the scaled one is rounded
        kept = min([eligible, *recipe.selector.sizes_in(section).values()])
    stages = [verdict.name for verdict in recipe.verdicts(True) if verdict.name not in (drawn, KEPT)]
    shown = [name for name in stages if counts[name] or name in (FAILED, *recipe.rules)]
    result = {name: counts[name] / fraction for name in shown}
    if drawn:
        result[drawn] = eligible - kept
    return result | {KEPT: kept}


def _error(survivors: DecidedRows, expectation: Expectation) -> float:
    is_sample = expectation.choice and expectation.is_uniform  # its size is exact if enough rows are left
    if is_sample and expectation.rows < sum(map(len, survivors.rows)):
        return 0.0
    sizes = np.array([len(state.verdicts) for state in survivors.states])
    shares = np.array([pi.sum() for pi in expectation.inclusion]) / np.maximum(1, sizes)
    share = expectation.rows / sizes.sum()
    of_rows = np.sqrt(share * (1 - share) / sizes.sum())
    scatter = np.std(shares, ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else of_rows
    fraction = survivors.fraction
    sampling = (scatter * sizes.sum() / fraction) ** 2 * (1 - fraction)  # 0 if everything was sampled
    return float(np.sqrt(sampling + expectation.error**2 / fraction))


def _bytes(survivors: DecidedRows, expectation: Expectation, sizes: pa.ChunkedArray) -> int | None:
    surviving = np.concatenate([state.surviving for state in survivors.states])
    mean = pc.mean(sizes.filter(pa.array(surviving))).as_py()
    return None if mean is None else round(mean * expectation.rows / survivors.fraction)


def _requests(
    context: RunContext, survivors: DecidedRows, expectation: Expectation, answers: Sequence[Index]
) -> list[EstimatedRequests]:
    """Return requests for the whole pool, from the prompts of the sample's rows, weighted by their probability."""
    captioning = CaptionSettings.of(context)
    captions = captioning.captions
    counts = survivors.counts if context.recipe.match else None
    # By kind and engine: answered requests, other requests, and the tokens in and out of the latter.
    sums = {(task.section.kind, task.section.engine): np.zeros(4) for task in captions.requested}
    for state, inclusion in zip(survivors.states, expectation.inclusion, strict=True):
        eligible = np.flatnonzero(state.eligible)
        prompted = eligible[:_PROMPTS]
        scale = len(eligible) / max(1, len(prompted))
        tables = context.unit_tables(state.unit)
        rows = Rows.of(tables, prompted, counts, inclusion[:_PROMPTS])
        rows = replace(rows, sources=rows.column("caption"))  # not written yet: assume the length of captions
        likely = dict(zip(rows.column("uid").to_pylist(), (scale * rows.probability).tolist(), strict=True))
        for task in captions.requested:
            requests = make_requests(captioning, tables, task, rows)
            digests = [request.digest(context.engine_ids[task.section.engine]) for request in requests]
            answered = np.any([index.holds(digests) for index in answers], axis=0)
            texts = [len(r.prompt or "") + sum(len(message.text) for message in r.messages) for r in requests]
            tokens = np.array(texts) / _CHARACTERS, np.array([request.sampling.max_tokens for request in requests])
            weights = np.array([likely[request.uid] for request in requests])
            each = np.array([answered, ~answered, *(~answered * count for count in tokens)])
            sums[task.section.kind, task.section.engine] += each @ weights
    estimated = []
    for (kind, engine), total in sums.items():
        cached, missing, tokens_in, tokens_out = (total / survivors.fraction).tolist()
        cost = captions.engines[engine].price.cost(tokens_in, tokens_out)
        sections = [task.section for task in captions.requested if task.section.kind == kind]
        has_images = any(section.needs_images for section in sections if section.engine == engine)
        estimated.append(EstimatedRequests(kind, engine, cached, missing, tokens_in, tokens_out, cost, has_images))
    return estimated
