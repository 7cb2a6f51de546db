"""The curation pipeline: pool in, curated shards and tables out.

units ─ measure ─ match ─ blocklist ─ relate ─ rules ─ deduplicate ─ later rules ─ count, solve t ─ decide ─ audit ─
caption ─ emit ─ compact ─ publish
"""

from collections.abc import Sequence

from curate.captions.unit import caption
from curate.decide.decide_rows import decide_rows
from curate.decide.settings import DecideSettings
from curate.emit.settings import EmitSettings
from curate.emit.steps import emit, hash_names
from curate.match.unit import match
from curate.measure.unit import measure
from curate.pool.plan import Unit
from curate.publish.audit import PublishSettings
from curate.publish.forget.block import apply_blocklist
from curate.publish.publish import audit, compact, measure_drift, publish_run, sources_of
from curate.publish.uids import sort_uids
from curate.relate.steps import relate
from curate.run.context import RunContext
from curate.run.units import Units


def build(units: Units, context: RunContext, plan: Sequence[Unit], n_buckets: int = 8) -> None:
    """Add the steps of a run for the units of a plan. The number of hash buckets does not affect the result."""
    recipe, publishing, emitting = context.recipe, PublishSettings.of(context), EmitSettings.of(context)
    unread = units.at("measure", measure, context)
    if recipe.match:
        units.at("match", match, context)
    if context.blocklist_key:
        units.at("audit", apply_blocklist, publishing)
    if recipe.relate.requested:
        units.at("relate", relate, context, unread)
    decided, surviving = decide_rows(units, DecideSettings.of(context), unread, n_buckets)
    names = units.at("emit", hash_names, emitting, n_buckets)
    uids = units.at("audit", sort_uids, context.store, recipe.repeats, n_buckets)
    drift = units.at("drift", measure_drift, publishing) if recipe.measure.kept else None
    audited, captioned = units.at("audit", audit, publishing), None
    if recipe.captions:
        audited, captioned = units.at("caption", caption, context, audited, surviving)
    sources = sources_of(plan)
    tables = units.at("audit", compact, publishing, audited, sources)
    shards = units.at("emit", emit, emitting, audited, names)
    findings = {"audit": audited, "decided": decided, "uids": uids, "drift": drift, "captioned": captioned}
    units.at("publish", publish_run, context, sources, tables, shards, **findings)
