"""The curation pipeline: pool in, curated shards and the ledger out.

units ─ Measure ─ Match ─ Block ─ ApplyRules ─ Deduplicate ─ Count, SolveT ─ Decide ─ Audit ─ Caption ─ Emit ─ Digest ─ Publish
"""

from collections.abc import Sequence

import apache_beam as beam

from curate.decide.state import count_entries
from curate.pool.plan import Unit
from curate.run.context import Job
from curate.transforms.caption import Caption
from curate.transforms.decide import ApplyRules, Decide, Deduplicate, SolveT
from curate.transforms.drift import MeasureDrift
from curate.transforms.emit import AuditUnits, Digest, Emit, Publish
from curate.transforms.forget import Block
from curate.transforms.measure import Match, Measure
from curate.transforms.sums import VectorSum


def build(root: beam.Pipeline, job: Job, units: Sequence[Unit], n_buckets: int = 8) -> beam.PCollection[None]:
    """Builds the pipeline.

    Args:
        root: the pipeline to add to.
        job: the run.
        units: the plan's units.
        n_buckets: into how many parts hashes are split; without influence on the result.

    Returns:
        One None, once `_SUCCESS` stands.
    """
    measured, gaps = root | "Units" >> beam.Create(units) | beam.Reshuffle() | Measure(job)
    vectors: dict[str, beam.PCollection] = {}
    if job.recipe.match:
        measured |= Match(job)
    if job.blocked:
        measured |= Block(job)
    if job.recipe.match:
        pool = measured | "CountPool" >> beam.Map(lambda unit: count_entries(job, unit))
        vectors["pool"] = pool | "SumPool" >> beam.CombineGlobally(VectorSum())
    ballots, thresholds = measured | ApplyRules(job)
    ballots, recalls = ballots | Deduplicate(job, n_buckets)
    if job.recipe.match:
        counts = ballots | "Count" >> beam.Map(lambda ballot: count_entries(job, ballot.unit, ballot))
        vectors["survivors"] = counts | "SumSurvivors" >> beam.CombineGlobally(VectorSum())
    if job.recipe.balance:
        vectors["t"] = ballots | SolveT(job, vectors["survivors"])
    verdicts = ballots | Decide(job, gaps, vectors.get("survivors"), vectors.get("t"))
    if job.recipe.match:
        sums = verdicts | "Entries" >> beam.Map(lambda verdict: verdict.entries)
        vectors["sums"] = sums | "SumEntries" >> beam.CombineGlobally(VectorSum())
    if job.has_embeddings:
        vectors["drift"] = verdicts | MeasureDrift(job)
    audits = verdicts | AuditUnits(job)
    if job.recipe.captions:
        audits, captioned = audits | Caption(job, vectors.get("survivors"))
        vectors["captioned"] = captioned | "Captioned" >> beam.combiners.ToList()
    shards = audits | Emit(job, n_buckets)
    digests = {"audits": audits, "shards": shards} | Digest(job)
    lists = {"audits": audits, "shards": shards, "digests": digests, "thresholds": thresholds, "recalls": recalls}
    return {**lists, **vectors} | Publish(job)
