"""`curate plan`: shows inputs and steps, and estimates yield and cost before a run."""

import datetime
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from curate.ask.costs.prices import Prices, load_prices
from curate.ask.output import line
from curate.ask.whatif.estimate import NotCompiledError, estimate
from curate.base.errors import RecipeError
from curate.base.process import CORES, temporary_folder
from curate.captions.engines import find_faults
from curate.cli import common
from curate.cli.progress import show_sample
from curate.download.rates import SECONDS
from curate.measure.current import count_needed
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Plan, Unit
from curate.pool.registry import find_downloading, find_format
from curate.recipe.recipe import load_recipe
from curate.recipe.source import Source
from curate.run.context import RunContext
from curate.store.layout import RUN_FILE

if TYPE_CHECKING:
    from pipelines.claim import Prepared

_UNREAD = 10  # number of unreadable files to list


def plan(
    recipe: common.RecipeArgument,
    beam_options: common.BeamArgument = None,
    out: Annotated[str | None, Option("--out", "-o", metavar="DIR")] = None,
    reuse: Annotated[str | None, Option(metavar="DIR")] = None,
    overrides: common.SetOption = [],  # noqa: B006
    fingerprint: common.FingerprintOption = common.Fingerprint.stat,
    on: common.OnOption = None,
    no_estimate: Annotated[bool, Option("--no-estimate")] = False,
    measure: Annotated[int | None, Option(metavar="N", min=1)] = None,
    prices: Annotated[str | None, Option(metavar="FILE")] = None,
    rows: Annotated[int | None, Option(metavar="N", min=1)] = None,
    seen: common.SeenOption = None,
) -> None:
    """Show inputs and steps, and estimate the yield, time and cost."""
    asks = on is not None or any(value is not None for value in (measure, prices, rows))
    figures = load_prices(prices) if asks and not no_estimate else None
    options = common.prepare_beam(beam_options, on)
    from pipelines.identity import count_current
    from pipelines.prepare import prepare

    loaded = load_recipe(recipe, overrides)
    with temporary_folder() as nowhere:
        content = fingerprint is common.Fingerprint.content
        with common.say_if_slow(common.PLANNING):
            prepared = prepare(loaded, out or f"{nowhere}/run", reuse, content, options, on=on)
        context, units = prepared.context, prepared.plan.units
        sources = [_source_facts(source, prepared.plan) for source in loaded.input]
        unread = [part for part in prepared.plan.files if part.fault][:_UNREAD]
        common.print_page("plan", part="inputs", prepared=prepared, sources=sources, unread=unread)
        common.print_lines(*map(line, common.warn_of_sizes(loaded, units)))
        done = count_current(context, units)
        common.print_page("plan", part="steps", done=done, units=len(units), needed=_count_needed(context, units, done))
        if prepared.finished:
            print("  the run is finished: nothing to do")
            return
        downloads = _show_downloads(context, units)
        if not no_estimate:
            _show_estimate(prepared, figures, measure, rows, seen, downloads)
        if context.recipe.captions:  # only warnings, because the run may be on another machine
            for error in find_faults(context.recipe.captions, context.engine_ids, load=False):
                print(f"\nwarning: {error}")


def _show_downloads(context: RunContext, units: Sequence[Unit]) -> bool:
    """Print a forecast of each source's downloads. Return whether there are any."""
    outlooks = list(common.find_outlooks(context, units))
    for source, source_units, outlook in outlooks:
        of_a_unit = min(outlook.at_once, ceil(outlook.parts / max(1, source_units)))
        at_once = min(outlook.parts, of_a_unit * min(CORES, max(1, source_units)))
        facts = {"source": source.name, "outlook": outlook, "of_a_unit": of_a_unit, "at_once": at_once}
        common.print_page("plan", part="downloads", assumed=SECONDS, **facts)
    return bool(outlooks)


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
        with common.say_if_slow("measuring a sample of the pool to estimate the yield (skip this with --no-estimate)"):
            # First, because it needs a fresh process.
            trials = find_trials(prepared, measure, show_sample) if figures else None
            context, pool = prepared.context, prepared.plan.units
            expected = estimate(context, pool, prepared.metadata, prepared.record, rows, show_sample)
    except NotCompiledError as error:
        print(f"\nestimate: none yet: {error}")
        return
    except RecipeError as error:  # for example, because only workers have the device
        if prepared.engine.place.is_this_machine:
            raise
        hint = "; to measure the cost, run a part of the pool on the workers (infra/cost.md, GPU)" if figures else ""
        print(f"\nestimate: none on this machine: {error}{hint}")
        return
    shown = {"estimate": expected, "downloads": downloads, "seen": seen, "cores": os.cpu_count() or 1}
    common.print_page("plan", part="estimate", **shown)
    if figures and trials and expected:
        costs = plan_costs(prepared, trials, expected, rows, figures)
        common.print_page("costs", plan=costs, today=datetime.date.today())
    elif figures and expected:
        print("for the cost of each step, add --measure N, or pass a finished run with --out or --reuse")


def _source_facts(source: Source, plan: Plan) -> dict[str, Any]:
    """Return facts about a source for the page: its parts, files and units."""
    parts_of_units = [unit.parts for unit in plan.units if unit.source == source.name]
    parts = list(chain.from_iterable(parts_of_units))
    return {
        "source": source,
        "parts": parts,
        "files": find_format(source).describe(parts),
        # The footers of Parquet row groups state their uncompressed size
        "is_uncompressed": any(part.groups and part.rows is not None for part in parts),
        "is_downloaded": find_downloading(source) is not None,
        "units": len(parts_of_units),
    }


def _count_needed(context: RunContext, units: Sequence[Unit], done: Mapping[str, int]) -> Mapping[str, int] | None:
    """Return in how many units each signal must be measured; None if in all units, or if no scores are missing."""
    if done.get("scores", len(units)) == len(units) or not (context.reuse or context.store.exists(RUN_FILE)):
        return None
    settings = MeasureSettings.of(context)
    needed = count_needed(settings, units, context.unit_tables)
    is_reused = any(needed[signal.name] < len(units) for signal in settings.signals if signal.columns)
    return needed if is_reused else None
