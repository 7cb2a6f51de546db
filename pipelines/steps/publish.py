"""Publishing on Beam: the audit, drift, the manifest's lines, and once all are there, what describes the run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsList, AsSingleton

from curate.captions.work import summarise
from curate.decide.draw.bracket import Solution
from curate.pool.plan import Unit
from curate.publish.audit import Audit, PublishSettings, audit_unit, check_damage
from curate.publish.compact import compact_chunk, lay_out_chunks
from curate.publish.drift import measure_drifts, merge, sample_unit
from curate.publish.publish import Results, publish
from curate.run.context import RunContext
from curate.store.chunks import Chunk
from curate.store.error_notes import noting_errors
from curate.store.facts import DriftFacts
from curate.store.manifest import Lines, Published, written_file
from curate.store.tables import OpenTables
from pipelines.steps.fold import Fold, total_all
from pipelines.steps.functions import FlatMap, Map
from pipelines.steps.threads import MapInThreads
from pipelines.steps.units import Answers, Units

_RESULTS = ("t", "pool", "survivors", "counts", "sums", "drift", "captioned")
_LISTS = ("shards", "thresholds", "derived", "recalls", "large")


def audit(units: Units, settings: PublishSettings) -> beam.PCollection[Audit]:
    """Count all rows of all units: PCollection of one Audit. Too much damage ends the run."""

    def count(tables: OpenTables, unit: Unit) -> Iterator[Audit]:
        yield audit_unit(settings, tables, unit)

    def check(found: Audit) -> Audit:
        with noting_errors(settings.store):
            check_damage(settings, found)
        return found

    return units.ask("Audit: count", count, combine=total_all(Audit)).get() | "Audit: check" >> Map(check)


def measure_drift(units: Units, settings: PublishSettings) -> Answers:
    """Measure the drift of each source from samples of its embeddings. Only where embeddings are kept.

    PCollection of one list[DriftFacts], by way of one sample a unit and source.
    """

    def sample(tables: OpenTables, unit: Unit) -> Iterator[Any]:
        yield from sample_unit(settings.recipe.measure, unit.source, tables)

    return units.ask("Drift: sample", sample, combine=_Drift())


class _Drift(beam.PTransform):
    def expand(self, samples: beam.PCollection[Any]) -> beam.PCollection[list[DriftFacts]]:
        merged = samples | "Merge" >> beam.CombinePerKey(Fold(lambda one, other: merge([one, other])))
        return merged | "Together" >> beam.combiners.ToDict() | "Measure" >> Map(measure_drifts)


def compact(
    audited: beam.PCollection[Audit],
    settings: PublishSettings,
    sources: Sequence[tuple[str, int]],
    on_one_machine: bool,
) -> beam.PCollection[list[Published]]:
    """Put the tables of many small units into few files; those of others stay as they are.

    `audited`, one, of all units, comes once all tables are there. `on_one_machine`: the runner works on this machine alone.
    Returns the manifest's lines of all tables.
    """

    def merge(chunk: Chunk) -> list[Published]:
        with noting_errors(settings.store):
            return [written_file(settings.store, path) for path in compact_chunk(settings, chunk)]

    chunks = audited | "Compact: chunks" >> FlatMap(lambda found: lay_out_chunks(sources, found.sizes))
    if not on_one_machine:
        chunks |= "Compact: spread" >> beam.Reshuffle()
    return chunks | "Compact: merge" >> MapInThreads(merge)


@dataclass
class Publish(beam.PTransform):
    """Write what describes the run and its shards, and `_SUCCESS` last."""

    context: RunContext
    sources: list[tuple[str, int]]  # the source of units that follow each other, and how many these are

    def expand(self, inputs: Any) -> beam.PCollection[None]:
        """Return a PCollection of one None, once the run is complete, from PCollections by name.

        Always: audit (one), lines (of the manifest, in lists), shards (with rows), large (groups of duplicates). Where there are any: thresholds, derived, recalls; of one
        element each t, pool, survivors, counts, sums, drift, captioned.
        """
        single = {name: AsSingleton(inputs[name]) for name in _RESULTS if inputs.get(name) is not None}
        lists = {name: AsList(inputs[name]) for name in _LISTS if inputs.get(name) is not None}
        lines = inputs["lines"] | total_all(Lines)
        return lines | Map(self._publish, audit=AsSingleton(inputs["audit"]), **lists, **single)

    def _publish(self, lines: Lines, audit: Audit, shards: list[tuple[int, int]], **found: Any) -> None:
        captions, captioned = self.context.recipe.captions, found.get("captioned")
        work = summarise(captions, self.context.engine_ids, captioned) if captions and captioned else []
        balance = self.context.recipe.balance
        results = Results(
            solution=found.get("t", Solution(balance.t) if balance and balance.t else None),
            thresholds=dict(found.get("thresholds", ())),
            scales={at: scale for part in found.get("derived", ()) for at, scale in part.items()},
            recalls=dict(found.get("recalls", ())),
            large_groups=found.get("large", ()),
            **{name: found.get(name) for name in ("pool", "survivors", "counts", "sums")},
            drift=found.get("drift") or [],
            caption_work=work,
        )
        with noting_errors(self.context.store):
            publish(PublishSettings.of(self.context), audit, dict(shards), results, self.sources, lines)
