"""`curate plan`: inputs, steps, cost and yield of a run, before it."""

import os
from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, Annotated

from typer import Option

from curate.ask.costs.page import Prices, load_prices, show_costs
from curate.ask.output import Line, columns, heading, line
from curate.ask.whatif.estimate import Estimate, EstimatedRequests, NotCompiledError, estimate
from curate.base.compiling import interpreting, is_compiled
from curate.base.errors import RecipeError
from curate.base.process import CORES, temporary_folder
from curate.base.stages import KEPT
from curate.base.wording import describe_seen, format_bytes, format_seconds, pluralise
from curate.captions.engines import find_faults
from curate.cli import common
from curate.cli.progress import show_sample
from curate.download.rates import SECONDS, Outlook
from curate.match.metadata import ImportReport
from curate.measure.current import count_needed
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Plan
from curate.pool.registry import find_downloading, find_format
from curate.recipe.recipe import Recipe, load_recipe
from curate.run.context import RunContext
from curate.store.layout import RUN_FILE
from curate.tar import walk

if TYPE_CHECKING:
    from pipelines.claim import Prepared


def plan(
    recipe: common.RecipeArgument,
    beam_options: common.BeamArgument = None,
    out: Annotated[
        str | None, Option("--out", "-o", metavar="DIR", help="The run folder: shows which steps are done.")
    ] = None,
    reuse: Annotated[str | None, Option(metavar="DIR", help="An older run: shows which tables are reused.")] = None,
    overrides: common.SetOption = [],  # noqa: B006
    fingerprint: common.FingerprintOption = common.Fingerprint.stat,
    on: common.OnOption = None,
    no_estimate: Annotated[bool, Option("--no-estimate", help="Do not measure a sample of the pool.")] = False,
    measure: Annotated[int | None, Option(metavar="N", min=1, help="Measure N rows aside for costs by step.")] = None,
    prices: Annotated[
        str | None, Option(metavar="FILE", help="Prices, as infra/prices.yaml; shows costs.", show_default=False)
    ] = None,
    rows: Annotated[
        int | None, Option(metavar="N", min=1, help="Costs of N rows, of which the inputs are a part.")
    ] = None,
    seen: common.SeenOption = None,
) -> None:
    """Show inputs, steps, and expected yield, time and cost of a run. It writes nothing.

    It also shows which steps are done already, and which caption engines fail. Relative paths, of --set too, count from
    the recipe's folder. With --measure, --prices, --rows or --on, costs are shown by step: by whole runs of a part of
    the pool aside, or without --measure by a finished run in --out or --reuse.
    """
    asks = on is not None or any(value is not None for value in (measure, prices, rows))
    figures = load_prices(prices) if asks and not no_estimate else None
    options = common.prepare_beam(beam_options, on)
    from pipelines.prepare import prepare

    loaded = load_recipe(recipe, overrides)
    with temporary_folder() as nowhere:
        content = fingerprint is common.Fingerprint.content
        with common.say_if_slow(common.PLANNING):
            prepared = prepare(loaded, out or f"{nowhere}/run", reuse, content, options, on=on)
        common.print_lines(*_inputs(loaded, prepared.plan, prepared.imported), line())
        with interpreting(not is_compiled(walk.walk)):
            common.print_lines(*map(line, common.warn_of_sizes(loaded, prepared.plan.units)))
        common.print_lines(line("steps"), *_steps(prepared.context, prepared.plan))
        if prepared.finished:
            print("  the run is finished: nothing to do")
            return
        downloads = list(common.find_outlooks(prepared.context, prepared.plan.units))
        for source, units, outlook in downloads:
            common.print_lines(line(), heading("downloads", source.name), *columns(list(_outlook(outlook, units))))
        if not no_estimate:
            _show_estimate(prepared, figures, measure, rows, seen, bool(downloads))
        if prepared.context.recipe.captions:  # no error: the run may be on another machine
            for fault in find_faults(prepared.context.recipe.captions, prepared.context.engine_ids, load=False):
                print(f"\nwarning: {fault}")


def _show_estimate(
    prepared: "Prepared",
    figures: Prices | None,
    measure: int | None,
    rows: int | None,
    seen: int | None,
    downloads: bool,
) -> None:
    from pipelines.trial import find_trials, plan_costs

    try:
        with common.say_if_slow("measuring a sample of the pool for the estimate; --no-estimate skips it"):
            # First, for it wants a new process.
            trials = find_trials(prepared, measure, show_sample) if figures else None
            context, pool = prepared.context, prepared.plan.units
            expected = estimate(context, pool, prepared.metadata, prepared.record, rows, show_sample)
    except NotCompiledError as error:
        print(f"\nestimate: none yet: {error}")
        return
    except RecipeError as error:  # of a device, say, that only workers have
        if prepared.engine.place.is_this_machine:
            raise
        hint = "; what it costs, a run of a part there tells: see infra/README.md, GPU" if figures else ""
        print(f"\nestimate: none on this machine: {error}{hint}")
        return
    common.print_lines(line(), *_estimate(expected, downloads, seen))
    if figures and trials and expected:
        common.print_lines(line(), *show_costs(plan_costs(prepared, *trials, expected, rows), figures))
    elif figures and expected:
        print("costs by step: add --measure N, or name a finished run by --out or --reuse")


def _inputs(recipe: Recipe, plan: Plan, imported: ImportReport | None) -> Iterator[Line]:
    yield line("inputs")
    rows = []
    for source in recipe.input:
        units = [unit for unit in plan.units if unit.source == source.name]
        parts = [part for unit in units for part in unit.parts]
        files, size = find_format(source).describe(parts), sum(part.size for part in parts)
        # Groups of rows in Parquet state their bytes before compression.
        is_parquet = any(part.groups and part.rows is not None for part in parts)
        amount = f"{format_bytes(size)}{' uncompressed' if is_parquet else ''}"
        if find_downloading(source):
            amount = pluralise(sum(part.rows or 0 for part in parts), "URL")
        counts = (files, amount, pluralise(len(units), "unit"))
        rows.append((source.name, source.format, *counts))
    yield from columns(rows)
    bad = [part for part in plan.files if part.fault]
    yield from (line(f"  {part.path}: {part.fault[0]}: {part.fault[1]}") for part in bad[:10] if part.fault)
    if plan.pool.rows is not None:
        yield line(f"  {pluralise(plan.pool.rows, 'row')}")
    if imported:
        yield line(f"  {imported.summary}")


def _steps(context: RunContext, plan: Plan) -> list[Line]:
    from pipelines.identity import count_current

    done, total = count_current(context, plan.units), len(plan.units)
    lines = {name: f"{count:,} of {pluralise(total, 'unit')} done" for name, count in done.items()}
    settings = MeasureSettings.of(context)
    if done.get("scores", total) < total and (context.reuse or context.store.exists(RUN_FILE)):
        needed = count_needed(settings, plan.units, context.unit_tables)
        if any(needed[signal.name] < total for signal in settings.signals if signal.columns):
            which = ", ".join(f"{name} {count:,}/{total:,}" for name, count in needed.items()) or "none"
            lines["scores"] += f" (signals to measure: {which}; columns of the others are reused)"
    return columns(list(lines.items()))


def _outlook(outlook: Outlook, units: int) -> Iterator[tuple[str, str]]:
    rates, left, parts = outlook.rates, outlook.left, outlook.parts
    yield "URLs", f"{outlook.rows:,}, {outlook.rows - left:,} of them in finished shards"
    if not left:
        return
    images = rates.came * left
    of_a_unit = min(outlook.at_once, ceil(parts / units))
    at_once = min(parts, of_a_unit * min(CORES, units))
    sizes = f"{format_bytes(images * rates.bytes)} from the network, {format_bytes(images * rates.stored)} in shards"
    urls = f"{pluralise(left, 'URL')} in {pluralise(parts, 'shard')}"
    yield "to download", f"{urls}: about {pluralise(round(images), 'image')}, {sizes}"
    hours = format_seconds(left * rates.seconds / at_once)
    yield "time", f"about {hours} on this machine, {pluralise(at_once, 'shard')} at a time ({of_a_unit} per unit)"
    share = f"{rates.came:.0%} yield an image, of {format_bytes(rates.bytes)} on average"
    a_shard = f"{format_seconds(rates.seconds * left / parts)} per shard"
    if rates.shards:
        yield "measured", f"{pluralise(rates.urls, 'URL')} in {pluralise(rates.shards, 'shard')}: {share}; {a_shard}"
    else:
        slowest = f"{SECONDS} s per URL, and {a_shard} with its slowest URL"
        yield "assumed", f"no shard is finished yet: {share}; {slowest}"
    yield "change it by", "number_sample_per_shard, thread_count, timeout, network.attempts (time), image_size (shards)"


def _estimate(expected: Estimate | None, downloads: bool, seen: int | None) -> Iterator[Line]:
    if expected is None:
        reason = "none yet, since nothing is downloaded" if downloads else "none, since no row could be read"
        yield line(f"estimate: {reason}")
        return
    cores = os.cpu_count() or 1
    is_whole = expected.sampled == expected.rows
    error = "; ± is one standard error" if expected.error else ""
    sample = f"{pluralise(expected.sampled, 'sample')} in {pluralise(expected.units, 'unit')}"
    yield line(f"estimate, from {'all ' if is_whole else ''}{sample}{error}")
    rows = [("pool", f"{'' if expected.is_counted else 'about '}{expected.rows:,}")]
    for name, count in expected.verdicts.items():
        if name != KEPT:
            rows.append((name, f"{'−' if count else ''}{count:,.0f}  ({count / expected.rows:.2%})"))
    count, error_text = expected.verdicts[KEPT], f" ± {expected.error:,.0f}" if expected.error else ""
    kept = f"{'' if is_whole else 'at most '}{count:,.0f}{error_text}  ({count / expected.rows:.2%})"
    kept += f", with {expected.chosen}" if expected.chosen else ""
    rows.append((KEPT, kept if is_whole else f"{kept}; duplicates of rows outside the sample are not counted"))
    rows += [("seen", describe_seen(seen, count, expected.copies))] if seen else []
    rows += [("output", f"{format_bytes(expected.bytes)} of images")] if expected.bytes is not None else []
    seconds = format_seconds(expected.seconds / cores)
    work = f"{seconds} on {pluralise(cores, 'core')} to measure and match, plus some seconds to start"
    rows.append(("time", work if expected.seconds else "some seconds: everything is measured and matched already"))
    compiled = f", {expected.compiling:,.0f} s of them to compile, once" if expected.compiling else ""
    hours = expected.core_seconds / 3600
    about = f"about {hours:.4f} ({expected.core_seconds:,.0f} s of CPU{compiled}), within a factor of 2"
    rows.append(("core-hours", f"{about}: --measure N is closer"))
    yield from columns(rows + [(kind.kind, describe_requests(kind)) for kind in expected.requests])
    yield from (line(f"warning: {warning}") for warning in expected.warnings)


def describe_requests(kind: EstimatedRequests) -> str:
    """Return how many requests of a kind there will be, with tokens and cost."""
    cost = f", {kind.cost:,.2f} by the price in the recipe" if kind.cost else ""
    fused = ", minus cached ones" if kind.kind == "fused" else ""
    cached = f" ({kind.answered:,.0f} more are cached)" if kind.answered else ""
    of_texts = " (and those of images, which only the engine knows)" if kind.has_images else ""
    tokens = f"{kind.tokens_in:,.0f} tokens in{of_texts}, at most {kind.tokens_out:,.0f} out"
    return f"about {pluralise(round(kind.requests), 'request')} to {kind.engine}{fused}{cached}, {tokens}{cost}"
