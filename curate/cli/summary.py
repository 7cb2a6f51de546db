"""What `curate run` prints once it has ended: the funnel, what to know of the run, and where to look."""

from collections import Counter
from collections.abc import Iterator
from math import ceil

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.schema import MISSING_REASONS, SAMPLE_REASONS
from curate.base.stages import FAILED, KEPT, POOL
from curate.base.wording import format_bytes, format_seconds, pluralise
from curate.decide.dedup.exact import LARGE_SHARE
from curate.pool.registry import find_downloading
from curate.run.context import open_context
from curate.store.facts import DownloadFacts, RunFacts, read_facts
from curate.store.layout import FAILURES_FILE, SIZES_FILE, UIDS_FILE, table_file
from curate.store.manifest import read_manifest
from curate.store.store import RunStore

_MISSING = pa.array(MISSING_REASONS)
_TABLES = 8  # at either end that are looked at for a sample to explain
_FEW_SHARDS = 8  # fewer may be too few for a training loader
_TRAINING = 10_000  # samples, of which a set is large enough to train on


def summary(out: str, seconds: float) -> str:
    """Return the funnel, and where to look."""
    store = RunStore(out)
    run = read_facts(store)
    shards = len(store.read_json(SIZES_FILE))
    lines = [
        *_funnel(run),
        *_decided(store, run),
        *_duplicates(run, out),
        *_failures(store, run, out),
        *_captions(run, out),
        f"{out}: {pluralise(shards, 'shard')} in {seconds:.1f} s",
        *_warnings(shards, run, out),
        "",
        *_hints(store, out),
    ]
    return "\n".join(lines)


def _funnel(run: RunFacts) -> Iterator[str]:
    width = max(len(name) for name in (*run.counts, POOL))
    yield f"{POOL:{width}}  {run.rows:>12,}"
    for name, n in run.counts.items():
        sign = "−" if n and name != KEPT else ""
        yield f"{name:{width}}  {f'{sign}{n:,}':>12}  {n / max(run.rows, 1):7.2%}"


def _decided(store: RunStore, run: RunFacts) -> Iterator[str]:
    yield from run.selection.summary if run.selection else ()
    if run.repeats or not run.pool.images:
        uids = next(line.rows or 0 for line in read_manifest(store) if line.path == UIDS_FILE)
        yield f"{UIDS_FILE}: {pluralise(uids, 'uid')}{', of which some repeat' if run.repeats else ''}"
    for rule in run.rules:
        if rule.threshold is not None:
            yield f"{rule.name}: threshold {rule.show(rule.threshold)} of {rule.of}"
    for column in run.derived or ():
        for statistic in column.statistics:
            yield f"{column.name}: {statistic.function}({statistic.of}) over {pluralise(statistic.rows, 'row')}"


def _duplicates(run: RunFacts, out: str) -> Iterator[str]:
    for near in run.near:
        if near.sampled:
            pairs = f"of {near.sampled:,} close pairs of a sample, {near.found:,} were compared"
            yield f"near-duplicates by embedding: {pairs}"
    if not run.large_groups:
        return
    largest, *smaller = run.large_groups
    rest = f"; over {LARGE_SHARE:.0%}: {pluralise(len(smaller), 'more group')}" if smaller else ""
    yield f"duplicates: {largest.describe(bool(run.near))}{rest}"
    if run.near and run.pool.images:
        rows = f"FROM decisions WHERE '{largest.uid}' IN (uid, duplicate_of)"
        yield f'  curate sql {out} "{rows}" --images      a page of the largest group'
        yield f"  curate sql {out} near_duplicates --images      the largest groups, with all their images"


def _failures(store: RunStore, run: RunFacts, out: str) -> Iterator[str]:
    readable = run.rows - run.counts.get(FAILED, 0)
    for errors in run.signal_errors or ():
        rows = f"null in {errors.rows:,} of {pluralise(readable, 'readable image')}, where it fails"
        yield f"warning: {errors.signal}: {rows} (first: {errors.first})"
    if (evaluation := run.evaluation) and evaluation.unread:
        unread = f"{evaluation.unread:,} more could not be read, such as {evaluation.such_as}"
        yield f"evaluation set: {pluralise(evaluation.images, 'image')}; {unread}"
    counts, missing, may_pass = Counter[str](), 0, 0
    with store.open_parquet(FAILURES_FILE) as file:
        for table in file.read_groups(["reason", "attempts", "may_pass"]):  # as many failures as rows, perhaps
            reasons = pc.value_counts(table["reason"])
            counts.update(dict(zip(*(reasons.field(i).to_pylist() for i in (0, 1)), strict=True)))
            never_came = table.filter(pc.and_(table["attempts"].is_valid(), pc.is_in(table["reason"], _MISSING)))
            missing += len(never_came)
            may_pass += pc.sum(never_came["may_pass"]).as_py() or 0
    failures = counts.most_common()
    for reason, n in failures:
        if reason in SAMPLE_REASONS:
            yield f"failed: {n:,} {reason} ({SAMPLE_REASONS[reason]})"
    if (facts := run.downloads) is not None:
        share = f"{facts.came:,} of {pluralise(facts.urls, 'URL')} ({facts.came / facts.urls:.1%})"
        rates = f"{facts.came / facts.seconds:,.0f} images/s, {format_bytes(facts.bytes / facts.seconds)}/s"
        yield f"downloaded: {share}, {format_bytes(facts.bytes)} in {format_seconds(facts.seconds)} ({rates})"
    if damaged := [f"{n:,} {reason}" for reason, n in failures if reason not in SAMPLE_REASONS]:
        yield f"files not read, or read in part: {', '.join(damaged)}; once they are repaired: --out NEW --reuse {out}"
    if missing:
        yield _not_there(store, facts, missing, may_pass)


def _captions(run: RunFacts, out: str) -> Iterator[str]:
    for work in run.caption_work:
        lost = f", {work.failed:,} without an answer" if work.failed else ""
        texts = f"{pluralise(work.requests, 'text')} ({work.sent:,} requested now{lost})"
        yield f"{work.kind} by {work.engine}: {texts}, {work.passed:,} passed the gates, {work.replaced:,} are in .txt"
    if run.caption_work:
        purpose = "results of the gates; also caption_work (cost) and captions (texts)"
        yield f"  curate sql {out} caption_gates      {purpose}"


def _hints(store: RunStore, out: str) -> Iterator[str]:
    hints = {
        f"sql {out} funnel": "what each rule dropped, in SQL",
        f"sql {out} dropped --images": "a page of samples that were dropped, with the reasons",
        f"explain {out} {_find_example(store)}": "why a sample was dropped",
        f"report {out}": "everything on one page, with samples",
        f"verify {out}": "integrity: digests, sums, shards against decisions",
    }
    width = max(map(len, hints))
    yield from (f"  curate {command:{width}}   {purpose}" for command, purpose in hints.items())


def _find_example(store: RunStore) -> str:
    """Return the uid of a dropped sample, of a few tables: the last ones have the rows that are tried again."""
    names = store.files("tables/decisions")
    for name in dict.fromkeys([*names[:_TABLES], *names[-_TABLES:]]):
        rows = store.read_parquet(name, ["uid", "rule"])
        dropped = rows.filter(pc.and_(pc.is_valid(rows["uid"]), pc.not_equal(rows["rule"], pa.scalar(FAILED))))
        if len(dropped):
            return str(dropped["uid"][0])
    return "UID"


def _not_there(store: RunStore, facts: DownloadFacts | None, missing: int, may_pass: int) -> str:
    context, units = open_context(store)
    downloading = {source.name for source in context.recipe.input if find_downloading(source)}
    rows = {line.path: line.rows or 0 for line in read_manifest(store)}
    tables = (table_file("samples", unit.index, unit.last) for unit in units if unit.source in downloading)
    hint = f"; {may_pass:,} may succeed on another attempt: curate run … --retry" if may_pass else ""
    urls = sum(rows[path] for path in tables)
    broken = missing - (facts.urls - facts.came) if facts and facts.urls == urls else 0  # else some came in other runs
    came = f", {broken:,} of which came, but cannot be decoded" if broken else ""
    return f"{missing:,} of {pluralise(urls, 'URL')} gave no image{came}{hint}"


def _warnings(shards: int, run: RunFacts, out: str) -> Iterator[str]:
    if run.pool.images and shards < _FEW_SHARDS and run.kept >= _TRAINING:
        rows = run.kept // _FEW_SHARDS
        remedy = f"--out NEW --reuse {out} --set output.rows_per_shard={rows} gives {ceil(run.kept / rows)}"
        reason = "open_clip's loader needs at least one shard for each worker on each GPU"
        yield f"note: {reason}; for {_FEW_SHARDS} in all, {remedy}"
    yield from (f"warning: {warning}" for warning in run.language_warnings)
    if run.rows and not run.kept:
        drops = max(run.counts, key=lambda name: run.counts[name])
        reason = f"{drops} drops most, {run.counts[drops]:,} of {run.rows:,}"
        yield f"warning: no sample is kept; {reason}: see `curate sql {out} funnel` and `curate sql {out} failures`"
