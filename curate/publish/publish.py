"""Publishes a run: audit, drift and sums over all units, then the files that describe the run, and `_SUCCESS` last.

Before that, the tables of many small units are merged into a few files, called chunks, so that SQL opens few files (see
`curate.store.chunks`). The files of units are kept until their last reader has ended. The chunks depend only on the
rows of units, so equal units give equal bytes. The largest use of memory is one table of a chunk.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema, stages
from curate.base.errors import RunError
from curate.base.numeric.arrays import F64, I64, concat_small
from curate.base.wording import pluralize
from curate.captions.work import Captioned, summarize
from curate.decide.apply_rules import RuleAnswer
from curate.decide.decide_rows import Decided
from curate.decide.dedup import exact
from curate.decide.draw.inclusion import ONE
from curate.decide.draw.selection import Choice, Outcome
from curate.decide.rules.top import TopSearch
from curate.download.rates import read_downloads
from curate.download.shard_names import ENDINGS
from curate.match.unit import NO_ENTRY, load_entries
from curate.pool.plan import UNIT_ROWS, Unit
from curate.publish.audit import (
    Audit,
    PublishSettings,
    audit_unit,
    check_conservation,
    check_damage,
    failures_parts,
    nest_counts,
    write_failures,
)
from curate.publish.describe import describe_run, mark_published
from curate.publish.drift import DriftSample, Group, measure_drifts, merge, sample_unit
from curate.publish.uids import UidsPart
from curate.recipe.deciding import DEDUP, Dedup, Top
from curate.recipe.recipe import Recipe
from curate.run.context import RunContext
from curate.run.units import Answer, Fold, Total, Units
from curate.store import facts as run_facts
from curate.store import layout
from curate.store.chunks import Chunk
from curate.store.facts import DerivedFacts, LargeGroupFacts, RuleFacts, RunFacts, SelectionFacts, StatisticFacts
from curate.store.forgotten import count_forgotten_since
from curate.store.layout import table_file
from curate.store.manifest import Lines, Published
from curate.store.store import RunStore
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import log_used, read_records, sum_sent, sum_timings, sum_used
from curate.store.validity import recorded_digest, recorded_line

_MANY_SHORT = 0.05  # share of the pool
_PUBLISHED = "published"  # name of the commit for the files that describe a run
CHUNK_ROWS = UNIT_ROWS[1]
CHUNK_UNITS = 500  # units per chunk: its footers describe each unit, and CORES chunks are in memory at once
MIN_UNITS = 64  # runs with fewer units are not merged,
MIN_FEWER = 4  # and neither are runs whose number of files would not become this many times smaller


@dataclass(frozen=True)
class Results:
    """Results for the whole run that are not in the tables of units."""

    sources: Sequence[tuple[str, int]]  # sources with their numbers of units, which are consecutive
    json_dtype: Any  # see `ContentFacts`
    audit: Audit
    decided: Decided
    uids: list[UidsPart]  # from `sort_uids`
    drift: list[run_facts.DriftFacts] | None = None
    captioned: Sequence[Captioned] | None = None


def publish(settings: PublishSettings, results: Results, digests: Lines) -> None:
    """Write everything except tables and shards, then the manifest, then `_SUCCESS`, unless another attempt has.

    `digests` are the manifest's lines for all tables and shards. Raises ConservationError if the input rows are not
    kept + dropped + failed.
    """
    store = settings.store
    if store.exists(layout.SUCCESS_FILE):
        return
    if not store.complete_commit(_PUBLISHED):
        try:
            _describe(settings, results, digests)
        except FileNotFoundError:
            if store.exists(layout.SUCCESS_FILE):  # another attempt wrote it, and deleted inputs of this attempt
                return
            raise
    chunks = lay_out_chunks(results.sources, results.audit.sizes)
    merged = [unit for chunk in chunks if chunk.first < chunk.last for unit in chunk.units]
    files = [table_file(name, unit) for name in settings.table_names for unit in merged]
    mark_published(store, files, store.exists(layout.NEW_FILE))
    store.delete_files(failures_parts(results.audit))


def _describe(settings: PublishSettings, results: Results, digests: Lines) -> None:
    store, kind, lines = settings.store, settings.output, Lines()
    lines.merge(digests)  # a parallel attempt may have the same object
    rows = lines.rows("shards/", f".{kind.suffix}")
    counts, decided = check_conservation(results.audit, sum(rows.values())), results.decided
    write_failures(store, results.audit)
    if decided.pool is not None and decided.survivors is not None and decided.sums is not None:
        assert settings.matching is not None
        p = decided.choice.entry_probabilities() if decided.choice else None
        entries = load_entries(settings.matching).table
        entries = count_entries(entries, decided.pool, decided.survivors, decided.sums, p)
    else:
        entries = schema.ENTRIES.empty_table()
    store.write_json(layout.SIZES_FILE, dict(sorted(rows.items(), key=lambda item: (len(item[0]), item[0]))))
    downloads, downloaded = read_downloads(store)
    with ThreadPoolExecutor() as pool:
        files = [*_downloaded_files(store, results.audit), *store.files(layout.INPUTS), *store.files(layout.MODELS)]
        digests_of = pool.map(lambda path: (path, downloaded.get(path) or recorded_digest(store, path)), files)
        lines.add(Published(path, file.rows, file.bytes, file.sha256) for path, file in digests_of if file)
    with store.commit(_PUBLISHED) as group:
        facts = _summarize(settings, counts, results, entries, lines).changed(downloads=downloads)
        describe_run(group, facts, lines, results.audit, results.uids, entries)


def _downloaded_files(store: RunStore, audit: Audit) -> list[str]:
    """Return the files in `pool/`. It is listed if an earlier start may have left other files."""
    if not store.exists(layout.NEW_FILE):
        return store.files(layout.POOL)
    return [f"{layout.POOL}/{stem}{end}" for stem in sorted(audit.downloads) for end in ENDINGS]


def count_entries(entries: pa.Table, pool: I64, survivors: I64, sums: I64, p: F64 | None) -> pa.Table:
    """Return the table entries.parquet.

    `entries` has the columns entry, source, language. For each entry, `pool` (int64) is the number of matching rows
    before any rule, and `survivors` (int64) the number before balancing. `sums` (int64[2, entries]) are the number of
    expected rows in fixed point (2⁻³²), and the number of kept rows. `p` (float64) is `Choice.entry_probabilities`;
    None means 1.
    """
    p = np.ones(len(survivors)) if p is None else p
    entry_ids = np.arange(len(entries), dtype=np.int32)
    columns = [entry_ids, *entries.columns, pool, survivors, p, sums[0] / float(ONE), sums[1]]
    arrays = [pa.array(c) if isinstance(c, np.ndarray) else c for c in columns]
    table = pa.Table.from_arrays(arrays, schema=schema.ENTRIES)
    is_entry = pc.not_equal(table["entry"], pa.scalar(NO_ENTRY))
    return table if pc.all(is_entry).as_py() else table.filter(is_entry).combine_chunks()


def _summarize(
    settings: PublishSettings, counts: Counter[str], results: Results, entries: pa.Table, digests: Lines
) -> RunFacts:
    store, recipe, pool = settings.store, settings.recipe, settings.pool
    audit, decided, captioned = results.audit, results.decided, results.captioned
    claim = run_facts.read_claim(store)
    log_used(store)
    records = read_records(store)
    now = time.time()
    evaluation = store.read_json(layout.EVALUATION_FACTS_FILE) if recipe.dedup.against else None
    chunks = lay_out_chunks(results.sources, audit.sizes)
    verdicts = [verdict.name for verdict in recipe.verdicts(settings.has_blocklist)]
    searches = {answer.rule: answer for answer in decided.rules if isinstance(answer, TopSearch)}
    values: Mapping[str, Any] = decided.choice.values if decided.choice else {}
    near = [
        run_facts.NearFacts(place=position, **by.model_dump(), sampled=int(pairs), found=int(compared))
        for (position, by), (pairs, compared) in zip(recipe.dedup.near.items(), decided.recalls, strict=True)
    ]
    failing = sorted(audit.errors.items())
    signal_errors = [run_facts.SignalErrors(signal=name, rows=part.rows, first=part.example) for name, part in failing]
    for name, rows in sorted(audit.nonfinite.items()):
        signal_errors.append(run_facts.SignalErrors(signal=name, rows=rows, first="NaN or infinity"))
    return RunFacts(
        **claim.model_dump(),
        evaluation=evaluation,
        pool=run_facts.PoolFacts(
            images=pool.has_images, supplied=sorted(pool.supplied), scores=pool.scores.names, embeddings=pool.embeddings
        ),
        units=list(results.sources),
        units_per_file=[len(chunk.units) for chunk in chunks] if len(chunks) < len(audit.sizes) else None,
        rules=[_rule_facts(name, spec, searches.get(name)) for name, spec in recipe.rules.items()],
        derived=_derived_facts(recipe.derive, decided.rules) if recipe.derive else None,
        selection=_selection(recipe, decided.choice, counts, entries),
        **{name: values.get(name) for name in ("t", "t_by_language", "expected", "expected_above")},
        steps=sum_timings(records),
        used=sum_used(records, digests),
        links=nest_counts(audit.links) or None,
        drift=results.drift or [],
        caption_work=summarize(recipe.captions, claim.engine_ids, captioned, sum_sent(records))
        if recipe.captions and captioned
        else [],
        near=near,
        large_groups=_large_groups(decided.large, verdicts, counts, recipe.dedup) or None,
        signal_errors=signal_errors or None,
        short_texts=_short_texts(recipe, audit) or None,
        counts={verdict: counts[verdict] for verdict in verdicts},
        content=run_facts.ContentFacts(json_dtype=results.json_dtype),
        finished=now,
        seconds=now - claim.started,
    )


def _short_texts(recipe: Recipe, audit: Audit) -> dict[str, int]:
    if (section := recipe.measure.language) is None or section.short:
        return {}
    rules = [name for name, sql in recipe.rules.items() if isinstance(sql, str) and re.search(r"\blanguage\b", sql)]
    return {name: audit.short[name] for name in rules if audit.short[name] > _MANY_SHORT * audit.rows}


def _selection(recipe: Recipe, choice: Choice | None, counts: Counter[str], entries: pa.Table) -> SelectionFacts | None:
    if choice is None or recipe.selection is None:
        return None
    (key, section), selection = recipe.selection, recipe.selector
    outcome = Outcome(section, choice, recipe.seed, counts[stages.KEPT], counts[key], entries)
    chosen = {"label": choice.label, "is_uniform": choice.is_uniform, "values": dict(choice.values)}
    chosen |= {"is_random": choice.is_random, "repeats": selection.has_repeats}
    return SelectionFacts(key=key, meaning=selection.meaning, **chosen, **selection.words(outcome).model_dump())


def _large_groups(
    largest: Sequence[tuple[int, str]], verdicts: Sequence[str], counts: Counter[str], by: Dedup
) -> list[LargeGroupFacts]:
    """Return the groups that have over `exact.LARGE_SHARE` of the rows that reached deduplication, largest first."""
    reached = sum(counts[verdict] for verdict in verdicts[verdicts.index(stages.DUPLICATE) :])
    groups = sorted((group for group in largest if group[0] > 1), key=lambda group: (-group[0], group[1]))
    large = [group for group in groups if group[0] > exact.LARGE_SHARE * reached]
    if by.near and not large:  # then the largest group, if its size and share exceed smaller limits
        large = [group for group in groups[:1] if group[0] >= max(exact.LARGE_NEAR, exact.LARGE_NEAR_SHARE * reached)]
    return [LargeGroupFacts(uid=uid, rows=rows, reached=reached) for rows, uid in large]


def _derived_facts(derive: Mapping[str, str], rules: Sequence[RuleAnswer]) -> list[DerivedFacts]:
    facts: dict[str, list[StatisticFacts]] = {name: [] for name in derive}
    scales = [item for answer in rules if not isinstance(answer, TopSearch) for item in answer.items()]
    for (name, _), fitted in sorted(scales, key=itemgetter(0)):
        call = fitted.call
        facts[name].append(StatisticFacts(function=call.function, of=call.sql, rows=fitted.rows, **fitted.parameters))
    return [DerivedFacts(name=name, sql=sql, statistics=facts[name]) for name, sql in derive.items()]


def _rule_facts(name: str, spec: str | Top, search: TopSearch | None) -> RuleFacts:
    if isinstance(spec, str):
        return RuleFacts(name=name, dedup=True) if spec == DEDUP else RuleFacts(name=name, sql=spec)
    thresholds = search.thresholds if search else {}
    facts = {"name": name, **spec.model_dump(), "single": (search is not None and search.single) or None}
    if spec.by is None:
        return RuleFacts(**facts, threshold=thresholds.get(None))
    groups = [run_facts.GroupThreshold(group=group, threshold=threshold) for group, threshold in thresholds.items()]
    return RuleFacts(**facts, thresholds=groups)


def lay_out_chunks(sources: Sequence[tuple[str, int]], sizes: Mapping[int, int]) -> list[Chunk]:
    """Return the chunks of a run, from `Results.sources` and the rows of each unit.

    If there are few units, none is merged.
    """
    chunks: list[Chunk] = []
    number = filled = 0
    for _, units in sources:
        for position in range(units):
            rows, last = sizes[number], chunks[-1] if chunks else None
            if position and last and filled + rows <= CHUNK_ROWS and len(last.units) < CHUNK_UNITS:
                chunks[-1] = Chunk(last.first, number)
                filled += rows
            else:
                chunks.append(Chunk(number, number))
                filled = rows
            number += 1
    if number <= MIN_UNITS or number < MIN_FEWER * len(chunks):
        return [Chunk(number, number) for number in range(number)]
    return chunks


def compact_units(store: RunStore, table_names: Sequence[str], chunk: Chunk) -> list[str]:
    """Merge the tables of a chunk's units into one file each. Return the files. A single unit is not changed."""
    last = None if chunk.first == chunk.last else chunk.last
    merged = UnitTables(store, chunk.first, last=last)
    if last is not None:
        for name in table_names:
            footers: list[tuple[int, str | None, Any]] = []  # rows, key and note of each unit
            table = concat_small(_read(store, name, chunk, footers))
            rows, keys, notes = map(list, zip(*footers, strict=True))
            merged.rewrite(name, table, None, {"units": {"rows": rows, "keys": keys, "notes": notes}})
    return [*map(merged.file, table_names)]


def _read(store: RunStore, name: str, chunk: Chunk, footers: list[tuple[int, str | None, Any]]) -> Iterator[pa.Table]:
    """Yield the tables of a chunk's units, and add the rows, keys and notes of their footers to `footers`."""
    for unit in chunk.units:
        with store.open_parquet(table_file(name, unit)) as file:
            table = file.read()
            footers.append((len(table), file.key, json.loads(file.note) if file.note else None))
        yield table


# ---- over all units


Sources = Sequence[tuple[str, int]]


def sources_of(plan: Sequence[Unit]) -> list[tuple[str, int]]:
    """Return sources with their numbers of units, in order."""
    return [(source, sum(1 for _ in consecutive)) for source, consecutive in groupby(unit.source for unit in plan)]


def audit(units: Units, settings: PublishSettings) -> Answer:
    """Audit all units. If too many rows or files failed, the run ends."""
    counted = units.ask("Audit: count", lambda tables, unit: [audit_unit(settings, tables, unit)], combine=Total(Audit))
    return units.get("Audit: check", check_damage, settings, counted)


def measure_drift(units: Units, settings: PublishSettings) -> Answer:
    """Measure the drift of each source from samples of its kept embeddings. The result is a list[DriftFacts]."""

    def sample(tables: OpenTables, unit: Unit) -> list[dict[Group, DriftSample]]:
        return [dict(sample_unit(settings.recipe.measure, unit.source, tables))]

    return units.get("Drift: measure", measure_drifts, units.ask("Drift: sample", sample, combine=Fold(_merge)))


def _merge(left: Mapping[Group, DriftSample], right: Mapping[Group, DriftSample]) -> dict[Group, DriftSample]:
    both = {group: merge([left[group], right[group]]) for group in left.keys() & right.keys()}
    return {**left, **right, **both}


def compact(units: Units, settings: PublishSettings, audited: Answer, sources: Sources) -> Answer:
    """Merge the tables of many small units into a few files, after `audited`.

    Return lists of lines for the manifest.
    """
    chunks = units.get("Compact: chunks", lambda counted: lay_out_chunks(sources, counted.sizes), audited)
    store, names = settings.store, settings.table_names

    def merge_chunk(chunk: Chunk) -> list[Published]:
        return [recorded_line(store, path) for path in compact_units(store, names, chunk)]

    return units.each("Compact: merge", chunks, merge_chunk)


def publish_run(
    units: Units,
    /,
    context: RunContext,
    sources: Sources,
    tables: Answer,
    shards: tuple[Answer, Answer],
    **findings: Any,
) -> Answer:
    """Write the files that describe the run and its shards, and `_SUCCESS` last. The answer is None.

    `tables` come from `compact`, `shards` from `emit`, and `findings` are the fields of `Results` from all units.
    """
    types, lines = shards
    lines = units.combine("Publish: lines", [tables, lines], Total(Lines))
    return units.get("Publish", partial(_publish, context, list(sources)), lines, types, **findings)


def _publish(
    context: RunContext, sources: list[tuple[str, int]], lines: Lines, types: tuple[int, Any] | None, **findings: Any
) -> None:
    if count := count_forgotten_since(context.store, context.reuse):  # some tables may be older than that
        assert context.reuse is not None
        problem = f"`curate forget` removed {pluralize(count, 'item')} from this run while another reused its tables"
        raise RunError(f"{context.reuse.url}: {problem}; start the other run again, so that it removes them as well")
    json_dtype = types[1] if types else None
    publish(PublishSettings.of(context), Results(sources=sources, json_dtype=json_dtype, **findings), lines)
