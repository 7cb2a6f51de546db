"""`curate run`: a recipe, whole."""

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import typer

from curate.cli.common import Fingerprint, FingerprintOption, OnOption, RecipeArgument, SetOption, warn_of_sizes
from curate.cli.imports import import_beam
from curate.cli.progress import show_progress
from curate.errors import RecipeError
from curate.measure.current import count_needed
from curate.measure.settings import MeasureSettings
from curate.pool.formats.registry import find_downloading
from curate.pool.plan import Unit
from curate.pool.retry import find_mendable
from curate.recipe.recipe import load_recipe
from curate.run.context import RunContext, open_context
from curate.schema import BALANCE, FAILED, KEPT, MISSING_REASONS, POOL, SAMPLE_REASONS
from curate.store.facts import RunFacts, read_facts
from curate.store.layout import ENTRIES_FILE, FAILURES_FILE, SIZES_FILE, SUCCESS_FILE, UIDS_FILE, table_file
from curate.store.lock import check_unlocked, remove_leftovers
from curate.store.manifest import read_manifest
from curate.store.retries import Retries
from curate.store.store import RunStore
from curate.wording import format_bytes, format_seconds, pluralise

_MISSING = pa.array(MISSING_REASONS)
_FEW_SHARDS = 8  # fewer may be too few for a training loader


def run(
    recipe: RecipeArgument,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="The run folder: local, or an fsspec URL.")],
    beam_options: Annotated[
        list[str] | None, typer.Argument(metavar="-- BEAM OPTIONS", help="Options of Beam, after those of --on.")
    ] = None,
    reuse: Annotated[
        str | None, typer.Option(metavar="DIR", help="An older run, whose tables are reused if current.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    fingerprint: FingerprintOption = Fingerprint.stat,
    on: OnOption = None,
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Try again the URLs of a finished run that may succeed."),
    ] = False,
) -> None:
    """Run a recipe: measure, decide, emit shards, publish. A rerun goes on where it was.

    Relative paths, of --set too, count from the recipe's folder. A changed recipe needs a new folder; with --reuse nothing is
    measured twice. A changed input file is detected by its size and its mtime or etag (stat), or by its bytes (content). In a run
    that is not finished, --retry goes on with it.
    """
    options = beam_options or []
    if not options and on is None:
        import_beam()
    from pipelines.claim import claimed
    from pipelines.driver import preflight, prepare
    from pipelines.driver import run as run_pipeline

    if options and not options[0].startswith("-"):
        what = f"unexpected argument {options[0]!r}"
        raise RecipeError(f"{what}; accepted: one RECIPE, then Beam options after --")
    if not RunStore(out).exists(SUCCESS_FILE):
        check_unlocked(RunStore(out))  # before the pool is listed, which may take long
    loaded = load_recipe(recipe, overrides)
    if retry and not any(map(find_downloading, loaded.input)):
        raise RecipeError(
            "--retry: no source of the recipe downloads anything; accepted: a recipe with a source of format urls"
        )
    rounds = Retries.read(RunStore(out)).rounds if RunStore(out).exists(SUCCESS_FILE) else None
    prepared = prepare(loaded, out, reuse, fingerprint is Fingerprint.content, options, retry=retry, on=on)
    if prepared.finished:
        remove_leftovers(prepared.context.store)
        why = "no failed URL is worth another attempt" if retry else "this run is already finished"
        if not retry and (count := _count_mendable(prepared.context, prepared.plan.units)):
            why += f", and {pluralise(count, 'URL')} may succeed on another attempt (--retry)"
        print(f"{out}: {why}; nothing to do (`curate verify {out}` reads every byte)")
        return
    if retry:
        is_new = rounds is not None and prepared.retries.rounds > rounds
        print(_retried(prepared.retries, is_new, prepared.context, out), file=sys.stderr)
    if reuse:
        print(_reused(prepared.context, prepared.plan.units, reuse), file=sys.stderr)
    for warning in warn_of_sizes(loaded):
        print(warning, file=sys.stderr)
    began = time.monotonic()
    if prepared.beam.runner == "spark":
        print("checking Spark's executors; the first one takes 10 to 30 s to start", file=sys.stderr)
    preflight(prepared)
    urls = _urls_to_download(prepared.context, prepared.plan.units)
    with claimed(prepared), show_progress(prepared.context.store, len(prepared.plan.units), urls):
        run_pipeline(prepared)
    print(summary(out, time.monotonic() - began))


def _count_mendable(context: RunContext, units: Sequence[Unit]) -> int:
    """Return how many URLs of a finished run --retry would try again."""
    if not any(map(find_downloading, context.recipe.input)):
        return 0
    return len(find_mendable(units, context.recipe.input, context.store.read_parquet(FAILURES_FILE)))


def _retried(retries: Retries, is_new: bool, context: RunContext, out: str) -> str:
    """Return which round --retry begins, or goes on with."""
    number = retries.rounds
    urls = pc.sum(pc.equal(retries.table["round"], number)).as_py() if number else 0
    what = f"round {number} of retries, {pluralise(urls, 'URL')}"
    if not is_new:
        goes_on = f"{out}: is not finished: continuing {what if number else 'the run'}"
        return f"{goes_on}; --retry begins another round once it is finished"
    again = "captions are matched and " if context.recipe.match else ""
    return (
        f"{out}: {what}; earlier images are not downloaded, decoded or scored again; {again}all rows are decided again"
    )


def _reused(context: RunContext, units: Sequence[Unit], reuse: str) -> str:
    """Return which tables of the older run are reused, and what is recomputed: tables, and signals of how many units."""
    from pipelines.keys import count_current

    def say(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}/{len(units)}" for name, count in counts.items() if count)

    decided = ("derived", "decisions", "answers", "captions")  # the first two are never reused, answers one by one
    found = {name: count for name, count in count_current(context, units).items() if name not in decided}
    settings = MeasureSettings.of(context)
    signals = count_needed(settings, units, context.unit_tables)
    lost = say({name: len(units) - count for name, count in found.items()})
    lines = [f"reused from {reuse}: {say(found) or 'no complete table'} (units)"]
    if found and lost and settings.signals:
        which = (
            f"signals {say(signals)}; columns of the others are reused"
            if signals
            else "no signal, their columns are reused"
        )
        lost = f"{lost} ({which})"
    rest = [
        *(["derived columns"] if context.recipe.derive else []),
        "decisions",
        *(["captions without a cached answer"] if context.recipe.captions else []),
        "shards",
    ]
    lines.append(f"recomputed: {', '.join(filter(None, [lost, *rest]))}")
    return "\n".join(lines)


def _urls_to_download(context: RunContext, units: Sequence[Unit]) -> int:
    downloading = [(kind, source) for source in context.sources if (kind := find_downloading(source))]
    parts = {
        source.name: [p for unit in units if unit.source == source.name for p in unit.parts]
        for _, source in downloading
    }
    return sum(kind.outlook(source, parts[source.name]).left for kind, source in downloading)


def _reached(store: RunStore, run: RunFacts) -> str:
    """Return the share of counts below t; nothing where they are another run's."""
    if run.recipe["balance"].get("counts"):
        return ""
    counts = store.read_parquet(ENTRIES_FILE, ["survivors"])["survivors"].to_numpy()
    return f", {counts[counts < run.t].sum() / max(1, counts.sum()):.4g},"


def _why_all_stay(store: RunStore, run: RunFacts) -> str:
    """Return why balancing dropped no row."""
    if not run.kept:
        return "no row reached it"
    target = run.recipe["balance"].get("rows")
    if target is not None and target >= run.kept:
        return f"balance.rows is {target:,}, and {pluralise(run.kept, 'row')} reached it"
    entries = store.read_parquet(ENTRIES_FILE, ["entry", "survivors", "probability"])
    if pc.min(entries["probability"]).as_py() == 1:
        most = int(pc.index(entries["survivors"], pc.max(entries["survivors"])).as_py())
        entry, rows = (entries[name][most].as_py() for name in ("entry", "survivors"))
        return f"no entry has more than t rows; the most frequent, {entry!r}, has {rows:,}"
    return "each row has an entry of at most t rows, or was drawn"


def _not_there(store: RunStore, failures: pa.Table) -> Iterator[str]:
    """Yield a line on the URLs that did not come, where the run downloaded."""
    missing = failures.filter(pc.and_(failures["attempts"].is_valid(), pc.is_in(failures["reason"], _MISSING)))
    if not len(missing):
        return
    context, units = open_context(store)
    downloading = {source.name for source in context.recipe.input if find_downloading(source)}
    rows = {line.path: line.rows or 0 for line in read_manifest(store)}
    tables = (table_file("samples", unit.index, unit.last) for unit in units if unit.source in downloading)
    count = pc.sum(missing["may_pass"]).as_py()
    more = f"; {count:,} may succeed on another attempt: curate run … --retry" if count else ""
    yield f"{len(missing):,} of {sum(rows[path] for path in tables):,} URLs were not downloaded{more}"


def _are_few(shards: int, run: RunFacts) -> Iterator[str]:
    """Yield a line on shards that may be too few for a training loader."""
    if run.pool.images and shards < _FEW_SHARDS <= run.kept:
        rows = run.kept // _FEW_SHARDS
        more = f"--set output.rows_per_shard={rows} gives {ceil(run.kept / rows)}"
        yield f"open_clip's loader needs at least a shard for each worker on each GPU; {more}"


def _nothing_kept(run: RunFacts, out: str) -> Iterator[str]:
    if run.rows and not run.kept:
        yield f"warning: no sample is kept: see `curate sql {out} funnel` and `curate sql {out} failures`"


def summary(out: str, seconds: float) -> str:
    """Return the funnel, and where to look."""
    store = RunStore(out)
    run = read_facts(store)
    pool = sum(run.counts.values())
    width = max(len(name) for name in (*run.counts, POOL))
    lines = [f"{POOL:{width}}  {pool:>12,}"]
    for name, n in run.counts.items():
        sign = "−" if n and name != KEPT else ""
        lines.append(f"{name:{width}}  {f'{sign}{n:,}':>12}  {n / pool if pool else 0:7.2%}")
    if run.t is not None:
        target, share = (run.recipe["balance"].get(key) for key in ("rows", "tail_share"))
        why = "" if target is None else f", the largest whose expected size is at most {target:,}"
        why = why if share is None else f", whose tail share{_reached(store, run)} is nearest to {share:.4g}"
        lines.append(f"balance: t = {run.t:,}{why}")
        if not run.counts[BALANCE]:
            lines.append(f"balancing dropped nothing: {_why_all_stay(store, run)}")
    if run.repeats:
        uids = next(line.rows for line in read_manifest(store) if line.path == UIDS_FILE)
        lines.append(f"{UIDS_FILE}: {uids:,} uids, repeated as output.repeat says")
    lines += [
        f"{rule.name}: threshold {rule.show(rule.threshold)} of {rule.of}"
        for rule in run.rules
        if rule.threshold is not None
    ]
    lines += [
        f"{column.name}: {one.function}({one.of}) over {pluralise(one.rows, 'row')}"
        for column in run.derived or ()
        for one in column.statistics
    ]
    for near in run.near:
        if near.sampled:
            pairs = f"of {near.sampled:,} close pairs of a sample, {near.found:,} were compared"
            lines.append(f"near-duplicates by embedding: {pairs}")
    lines += [f"duplicates: {group.describe(bool(run.near))}" for group in run.large_groups or ()]
    readable = pool - run.counts.get(FAILED, 0)
    for errors in run.signal_errors or ():
        rows = f"null in {errors.rows:,} of {pluralise(readable, 'readable image')}, where it fails"
        lines.append(f"warning: {errors.signal}: {rows} (first: {errors.first})")
    if (found := run.evaluation) and found.unread:
        unread = f"{found.unread:,} more could not be read, such as {found.such_as}"
        lines.append(f"evaluation set: {found.images:,} images; {unread}")
    table = store.read_parquet(FAILURES_FILE, ["reason", "attempts", "may_pass"])
    failures = Counter(table["reason"].to_pylist()).most_common()
    lines += [f"failed: {n:,} {why} ({SAMPLE_REASONS[why]})" for why, n in failures if why in SAMPLE_REASONS]
    if (got := run.downloads) is not None:
        lines.append(
            f"downloaded: {got.came:,} of {pluralise(got.urls, 'URL')} ({got.came / got.urls:.1%}), {format_bytes(got.bytes)} in "
            f"{format_seconds(got.seconds)} ({got.came / got.seconds:,.0f} images/s, {format_bytes(got.bytes / got.seconds)}/s)"
        )
    if damaged := [f"{n:,} {why}" for why, n in failures if why not in SAMPLE_REASONS]:
        lines.append(f"files not read, or read in part: {', '.join(damaged)}")
    lines += _not_there(store, table)
    for work in run.caption_work:
        lost = f", {work.failed:,} without an answer" if work.failed else ""
        lines.append(
            f"{work.kind} by {work.engine}: {work.requests:,} texts ({work.sent:,} requested now{lost}), "
            f"{work.passed:,} passed the gates, {work.replaced:,} are in .txt"
        )
    if run.caption_work:
        lines.append(
            f"  curate sql {out} caption_gates      results of the gates; also caption_work (cost) and captions (texts)"
        )
    first = store.files("tables/decisions")[0]
    uids = store.read_parquet(first, ["uid"])["uid"].drop_null()
    shards = len(store.read_json(SIZES_FILE))
    lines += [
        f"{out}: {pluralise(shards, 'shard')} in {seconds:.1f} s",
        *_are_few(shards, run),
        *_nothing_kept(run, out),
        "",
    ]
    hints = {
        f"sql {out} funnel": "what each rule dropped, in SQL",
        f"explain {out} {uids[0] if len(uids) else 'UID'}": "why a sample is in or out",
        f"report {out}": "everything on one page, with samples",
        f"verify {out}": "integrity: digests, sums, shards against decisions",
    }
    width = max(map(len, hints))
    lines += [f"  curate {command:{width}}   {what}" for command, what in hints.items()]
    return "\n".join(lines)
