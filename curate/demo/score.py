"""Counts the injected defects that each rule of the demo caught, from the truth and the run's decisions."""

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from curate.base.stages import DUPLICATE, KEPT
from curate.demo.samples import NEAR_DUPLICATES
from curate.demo.words import AIMS, DEFECTS

CLEAN = "(clean)"
NEAR = "near-duplicates among them"  # the name of the line for near-duplicates, below the line for all duplicates


@dataclass(frozen=True)
class Caught:
    """How many samples with a kind of defect each rule dropped."""

    defect: str  # its name, or `CLEAN`
    injected: int  # rows with this defect
    rules: dict[str, int]  # how many of them each rule dropped, including `kept`
    mistaken: int = 0  # rows dropped as a duplicate of a sample with a different scene


@dataclass(frozen=True)
class Rate:
    """How accurate a rule is. A share is None if there are no rows."""

    rule: str  # its name, or `NEAR`
    dropped: int  # rows that it dropped
    # Share of these with any defect; for duplicates, share of these whose surviving sample shows the same scene.
    precision: float | None
    injected: int  # rows with a defect that the rule should catch
    recall: float | None  # share of these that this or an earlier rule dropped


def rate_rules(caught: list[Caught], order: list[str]) -> list[Rate]:
    """Return how accurate the rules in `AIMS` are, in the order of the rules, from what they dropped of each defect.

    A row that was dropped as a duplicate of another scene counts for `NEAR`: equal uids or bytes never join two scenes.
    """
    rates = []
    for position, rule in enumerate(order):
        if rule not in AIMS:
            continue
        gone = {line.defect: sum(line.rules.get(name, 0) for name in order[: position + 1]) for line in caught}
        injected = {line.defect: line.injected for line in caught if line.defect in AIMS[rule]}
        dropped = sum(line.rules.get(rule, 0) for line in caught)
        if rule == DUPLICATE:
            mistaken = sum(line.mistaken for line in caught)
            near = {line.defect: line for line in caught if line.defect in NEAR_DUPLICATES}
            alike = sum(line.rules.get(rule, 0) - line.mistaken for line in near.values())
            rates.append(_rate(rule, dropped, dropped - mistaken, injected, gone))
            rates.append(_rate(NEAR, alike + mistaken, alike, {name: near[name].injected for name in near}, gone))
        else:
            clean = sum(line.rules.get(rule, 0) for line in caught if line.defect == CLEAN)
            rates.append(_rate(rule, dropped, dropped - clean, injected, gone))
    return rates


def _rate(rule: str, dropped: int, right: int, injected: dict[str, int], gone: dict[str, int]) -> Rate:
    total = sum(injected.values())
    fell = sum(gone[defect] for defect in injected)
    return Rate(rule, dropped, right / dropped if dropped else None, total, fell / total if total else None)


def score(truth_path: str, run: str) -> list[Caught]:
    """Join the truth with the decisions, by shard and key.

    If an injected copy survives instead of its original, the two are swapped.
    """
    truth = {(sample["shard"], sample["key"]): sample for sample in pq.read_table(truth_path).to_pylist()}
    samples, decisions = (pq.read_table(f"{run}/tables/{name}").to_pylist() for name in ("samples", "decisions"))
    tars = [sample["shard"].rsplit("/", 1)[-1] for sample in samples]
    decided = {(tar, sample["key"]): row for tar, sample, row in zip(tars, samples, decisions, strict=True)}
    scenes = {location: sample["original_key"] or sample["key"] for location, sample in truth.items()}
    retained = {row["uid"]: location for location, row in decided.items() if row["rule"] != DUPLICATE}
    mistaken = Counter[str]()
    for location, sample in truth.items():
        row = decided[location]
        if row["rule"] == DUPLICATE:
            other = retained[row["duplicate_of"]]
            if scenes[other] != scenes[location]:
                mistaken[sample["defect"]] += 1
            elif not sample["original_key"]:
                decided[location], decided[other] = decided[other], row
    caught = {defect: Counter[str]() for defect in ("", *DEFECTS)}
    for location, sample in truth.items():
        caught[sample["defect"]][decided[location]["rule"] or KEPT] += 1
    return [Caught(defect or CLEAN, rules.total(), dict(rules), mistaken[defect]) for defect, rules in caught.items()]
