"""The curation pipeline: pool in, curated shards and tables out.

units ─ Measure ─ Match ─ ApplyBlocklist ─ ApplyRules ─ Deduplicate ─ CountEntries, SolveT ─ Decide ─ Audit ─ Caption ─ Emit ─ Compact ─ Digest ─ Publish
"""

import operator
from collections.abc import Sequence

import apache_beam as beam

from curate.decide.settings import DecideSettings
from curate.output.settings import EmitSettings
from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings, audit_unit
from curate.run.context import RunContext
from curate.transforms.caption import Caption
from curate.transforms.decide import ApplyRules, CountEntries, Decide, SolveT
from curate.transforms.deduplicate import Deduplicate
from curate.transforms.emit import Emit
from curate.transforms.fold import fold_all
from curate.transforms.forget import ApplyBlocklist
from curate.transforms.measure import Match, Measure
from curate.transforms.publish import Compact, Digest, MeasureDrift, Publish
from curate.transforms.threads import MapInThreads


def build(
    root: beam.Pipeline, context: RunContext, units: Sequence[Unit], n_buckets: int = 8
) -> beam.PCollection[None]:
    """Add the run's steps to a pipeline; they give one None, once `_SUCCESS` is written.

    Elements are units, partitions of the input; from the audit on their audits stand in for them. `n_buckets`, the number of
    hash buckets in deduplication, has no influence on the result.
    """
    measured, unread_files = root | "Units" >> beam.Create(units) | beam.Reshuffle() | Measure(context)
    settings, publishing = DecideSettings.of(context), PublishSettings.of(context)
    results: dict[str, beam.PCollection] = {}
    if context.recipe.match:
        measured |= Match(context)
    if context.blocklist_key:
        measured |= ApplyBlocklist(publishing)
    if context.recipe.match:
        results["pool"] = measured | "CountPool" >> CountEntries(settings)
    states, thresholds = measured | ApplyRules(settings)
    states, recalls = states | Deduplicate(settings, n_buckets, context.is_local_runner)
    if context.recipe.match:
        results["survivors"] = states | "CountSurvivors" >> CountEntries(settings)
    if context.recipe.balance:
        results["t"] = states | SolveT(settings, results["survivors"])
    decided, sums = states | Decide(settings, unread_files, results.get("survivors"), results.get("t"))
    if context.recipe.match:
        results["sums"] = sums | "SumEntries" >> fold_all(operator.add)
    if context.recipe.measure.kept:
        results["drift"] = decided | MeasureDrift(publishing)
    audits = decided | "Audit" >> MapInThreads(lambda unit: audit_unit(publishing, unit))
    if context.recipe.captions:
        audits, captioned = audits | Caption(context, results.get("survivors"))
        results["captioned"] = captioned | "Captioned" >> beam.combiners.ToList()
    shards = audits | Emit(EmitSettings.of(context), publishing, n_buckets)
    tables = audits | Compact(publishing)
    digests = {"tables": tables, "shards": shards} | Digest(publishing)
    lists = {"audits": audits, "shards": shards, "digests": digests, "thresholds": thresholds, "recalls": recalls}
    return {**lists, **results} | Publish(context)
