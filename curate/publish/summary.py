"""The facts of a finished run, for run.json: what determines it, and the results of the pipeline."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from curate.numeric.arrays import I64
from curate.publish.settings import PublishSettings
from curate.recipe.deciding import Top
from curate.store.facts import (
    CaptionWork,
    DriftFacts,
    EvaluationFacts,
    NearFacts,
    PoolFacts,
    RuleFacts,
    RunFacts,
    read_claim,
)
from curate.store.layout import EVALUATION_FACTS_FILE
from curate.store.timings import sum_timings


@dataclass(frozen=True)
class Results:
    """What the pipeline found that is not in the tables of units."""

    t: int | None  # rows that an entry may have, as the recipe says or solved; None without balance
    thresholds: dict[str, float | None]  # rule → value of each top rule; None where no row reached it
    # Place of a pass by nearness → int64[2]: of a sample's close pairs, how many there are, and how many were compared.
    recalls: dict[int, I64]
    pool: I64 | None  # [entries], matching rows of the pool; None without match
    survivors: I64 | None  # [entries], matching rows when balancing began
    sums: I64 | None  # [2, entries], expected (fixed point) and kept rows
    drift: list[DriftFacts] = field(default_factory=list)
    caption_work: list[CaptionWork] = field(default_factory=list)


def summarise_run(
    settings: PublishSettings, counts: Counter[str], results: Results, sources: Sequence[str]
) -> RunFacts:
    """Return what run.json will hold, but for `content`.

    Args:
        settings: of the run.
        counts: rows per rule, and `kept`.
        results: of the pipeline.
        sources: of each unit, in order.
    """
    store, recipe, pool = settings.store, settings.recipe, settings.pool
    claim = read_claim(store)
    now = time.time()
    evaluation = store.read_json(EVALUATION_FACTS_FILE) if recipe.dedup.against else None
    return RunFacts(
        **claim.model_dump(),
        evaluation=evaluation and EvaluationFacts.model_validate(evaluation),
        pool=PoolFacts(
            images=pool.images, supplied=sorted(pool.supplied), scores=pool.scores.names, embeddings=pool.embeddings
        ),
        units=[(source, sum(1 for _ in units)) for source, units in groupby(sources)],
        rules=[_rule_facts(name, spec, results.thresholds.get(name)) for name, spec in recipe.rules.items()],
        t=results.t,
        steps=sum_timings(store),
        drift=results.drift,
        caption_work=results.caption_work,
        near=[
            NearFacts(place=place, **by.model_dump(), sampled=int(pairs), found=int(compared))
            for place, by in recipe.dedup.near.items()
            for pairs, compared in [results.recalls[place]]
        ],
        counts={stage.name: counts[stage.name] for stage in recipe.stages(settings.has_blocklist)},
        finished=now,
        seconds=now - claim.started,
    )


def _rule_facts(name: str, spec: str | Top, threshold: float | None) -> RuleFacts:
    if isinstance(spec, str):
        return RuleFacts(name=name, sql=spec)
    return RuleFacts(name=name, top=spec.top, of=spec.of, threshold=threshold)
