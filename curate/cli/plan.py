"""`curate plan`: what a run would read, do, cost and yield, before it."""

import os
import tempfile
from typing import Annotated

import typer

from curate.captions.engines import find_faults
from curate.cli.run import FingerprintOption, RecipeArgument, SetOption, by_content
from curate.metadata.sources import never_match
from curate.pool.plan import Plan
from curate.recipe.recipe import Recipe, load_recipe
from curate.whatif.estimate import Asked, Estimate, estimate
from curate.wording import format_bytes, format_seconds, pluralise


def plan(
    recipe: RecipeArgument,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="The run folder: shows what is already done.")
    ] = None,
    reuse: Annotated[
        str | None, typer.Option(metavar="DIR", help="An older run: shows what can be taken from it.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    fingerprint: FingerprintOption = "stat",
    no_estimate: Annotated[bool, typer.Option("--no-estimate", help="Do not measure a sample of the pool.")] = False,
) -> None:
    """Show inputs, units, steps, what is done already, the estimated yield and cost, and engines that fail; writes nothing."""
    from pipelines.driver import prepare

    loaded = load_recipe(recipe, overrides)
    with tempfile.TemporaryDirectory() as nowhere:
        prepared = prepare(loaded, out or f"{nowhere}/run", reuse, by_content(fingerprint))
        print(_inputs(loaded, prepared.plan))
        if prepared.metadata is not None:
            never = int(never_match(prepared.metadata["entry"]).sum())
            why = f"; {never:,} can never match, as `curate metadata import` tells" if never else ""
            print(f"  {'metadata':12} {pluralise(len(prepared.metadata), 'entry', 'entries')}{why}")
        print("\nsteps")
        for table in prepared.context.tables:
            done = sum(prepared.context.would_be_current(unit, table) for unit in prepared.plan.units)
            print(f"  {table:12} {done:,} of {len(prepared.plan.units):,} units done")
        if prepared.finished:
            print("  the run is finished: nothing to do")
            return
        if not no_estimate:
            found = estimate(prepared.context, prepared.plan.units, prepared.metadata, prepared.record)
            print(f"\n{_estimate(found, prepared.context.pool.images)}")
        if prepared.context.recipe.captions:  # no error: the run may be on another machine
            for fault in find_faults(prepared.context.recipe.captions, prepared.context.engine_ids, load=False):
                print(f"\nwarning: {fault}")


def _inputs(recipe: Recipe, plan: Plan) -> str:
    lines = ["inputs"]
    sizes = {source.name: [0, 0, 0] for source in recipe.input}
    for unit in plan.units:
        sizes[unit.source][0] += 1
        sizes[unit.source][2] += sum(part.size for part in unit.parts)
    for source in recipe.input:
        files = {part.path for unit in plan.units if unit.source == source.name for part in unit.parts}
        units, _, size = sizes[source.name]
        lines.append(
            f"  {source.name:12} {source.format:10} {pluralise(len(files), 'file')}  {format_bytes(size)}  {pluralise(units, 'unit')}"
        )
    bad = [part for part in plan.files if part.fault]
    lines += [f"  {part.path}: {part.fault[0]}: {part.fault[1]}" for part in bad[:10] if part.fault]
    if plan.pool.rows is not None:
        lines.append(f"  {plan.pool.rows:,} rows")
    return "\n".join(lines)


def _estimate(found: Estimate | None, images: bool) -> str:
    if found is None:
        return "estimate: the pool is empty"
    cores = os.cpu_count() or 1
    unseen = "" if found.sampled == found.rows else " (duplicates of what was not sampled are not seen)"
    spread = "; ± is one standard error" if found.error else ""
    lines = [f"estimate, from {pluralise(found.sampled, 'sample')} in {pluralise(found.units, 'unit')}{unseen}{spread}"]
    about = "" if found.sampled == found.rows else "about "
    lines.append(f"  {'pool':12} {about}{found.rows:,}")
    for name, rows in sorted(found.verdicts.items(), key=lambda item: item[0] == "kept"):
        error = f" ± {found.error:,.0f}" if name == "kept" and found.error else ""
        lines.append(f"  {name:12} {'' if name == 'kept' else '−'}{rows:,.0f}{error}  ({rows / found.rows:.1%})")
    if images:
        lines.append(f"  {'output':12} {format_bytes(found.bytes)} of images")
    work = f"{format_seconds(found.seconds / cores)} on {cores} cores to measure and match, plus some seconds to start"
    lines.append(f"  {'time':12} {work if found.seconds else 'some seconds: all is measured and matched already'}")
    return "\n".join([*lines, *map(_asked, found.asked)])


def _asked(asked: Asked) -> str:
    cost = f", {asked.cost:,.2f} by its price" if asked.cost else ""
    fused = ", less what is answered already" if asked.kind == "fused" else ""
    there = f" ({asked.answered:,.0f} more are answered already)" if asked.answered else ""
    return (
        f"  {asked.kind:12} about {asked.requests:,.0f} requests of {asked.engine}{fused}{there}, "
        f"{asked.tokens_in:,.0f} tokens in, at most {asked.tokens_out:,.0f} out{cost}"
    )
