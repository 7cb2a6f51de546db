"""The curation pipeline: pool in, curated shards and tables out.

units ─ measure ─ match ─ blocklist ─ rules ─ deduplicate ─ later rules ─ count, solve t ─ decide ─ audit ─ caption ─ emit ─ compact ─ publish
"""

from collections.abc import Sequence
from itertools import groupby

import apache_beam as beam

from curate.decide.draw.balance import EntryVector
from curate.decide.other_counts import read_counts
from curate.decide.settings import DecideSettings
from curate.emit.settings import EmitSettings
from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings
from curate.run.context import RunContext
from pipelines.steps.caption import caption
from pipelines.steps.decide import Rules, count_matches, count_survivors, decide, draw_sample, solve_t
from pipelines.steps.deduplicate import deduplicate
from pipelines.steps.emit import emit, hash_names
from pipelines.steps.forget import apply_blocklist
from pipelines.steps.functions import Map
from pipelines.steps.measure import match, measure
from pipelines.steps.publish import Publish, audit, compact, measure_drift
from pipelines.steps.units import Answers, Units


def build(root: beam.Pipeline, context: RunContext, plan: Sequence[Unit], n_buckets: int = 8) -> beam.PCollection[None]:
    """Add the run's steps to a pipeline; they give one None, once `_SUCCESS` is written.

    Elements are packets of units, partitions of the input, or of their states. `n_buckets`, the number of hash buckets in deduplication, has
    no influence on the result.
    """
    recipe, settings, publishing = context.recipe, DecideSettings.of(context), PublishSettings.of(context)
    emitting = EmitSettings.of(context)
    units = Units(root, plan, context)
    answers: dict[str, Answers | None] = {}
    unread = measure(units, context)
    if recipe.match:
        match(units, context)
    if context.blocklist_key:
        apply_blocklist(units, publishing)
    rules = Rules(units, settings)
    rules.apply()
    counts = count_matches(units, settings) if recipe.match else None
    recalls, large = deduplicate(units, settings, n_buckets, context.is_local_runner)
    rules.apply_later()
    results = {**rules.results(), "recalls": recalls, "large": large}
    if counts:
        results["pool"] = counts.get() | "Counts: pool" >> Map(lambda found: found[0])
        results["survivors"] = results["counts"] = count_survivors(units, settings, counts)
        if (others := read_counts(recipe, context.metadata_key)) is not None:
            results["counts"] = root | "Counts: given" >> beam.Create([others.view(EntryVector)])
    if recipe.balance:
        results["t"] = solve_t(units, settings, results["counts"])
    sample = draw_sample(units, settings)
    answers["sums"] = decide(units, settings, unread.get(), results.get("counts"), results.get("t"), sample)
    names = hash_names(units, emitting, n_buckets)
    if recipe.measure.kept:
        answers["drift"] = measure_drift(units, publishing)
    audited = audit(units, publishing)
    if recipe.captions:
        audited, results["captioned"] = caption(units, context, audited, results.get("survivors"))
    sources = [(source, sum(1 for _ in of)) for source, of in groupby(unit.source for unit in plan)]
    tables = compact(audited, publishing, sources, context.is_local_runner)
    results["shards"], lines = emit(units, emitting, audited, names.get())
    results |= {name: answer.get() for name, answer in answers.items() if answer is not None}
    results |= {"audit": audited, "lines": (tables, lines) | "Publish: lines" >> beam.Flatten()}
    return {name: found for name, found in results.items() if found is not None} | Publish(context, sources)
