"""How many of each injected defect each rule of the demo caught, from the truth and the run's decisions."""

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from curate.base.stages import DUPLICATE, KEPT
from curate.demo.samples import NEAR_DUPLICATES
from curate.demo.words import AIMS, DEFECTS

CLEAN = "(clean)"
NEAR = "near-duplicates among them"  # the line of the near-duplicates, below that of all duplicates


@dataclass(frozen=True)
class Caught:
    """What became of a kind of defect."""

    defect: str  # its name, or `CLEAN`
    injected: int  # the rows that have it
    rules: dict[str, int]  # how many of them each rule dropped; `kept` is among the rules
    mistaken: int = 0  # how many were dropped as a duplicate of a sample that shows another scene


@dataclass(frozen=True)
class Rate:
    """How right a rule was; shares are None of none."""

    rule: str  # its name, or `NEAR`
    dropped: int  # the rows that it dropped
    # The share of them with a defect of any kind; of duplicates, of those that show the scene of what stays for them.
    precision: float | None
    injected: int  # rows with a defect that it is for
    recall: float | None  # the share of these that it dropped, or a rule before it


def rate_rules(caught: list[Caught], order: list[str]) -> list[Rate]:
    """Return the rates of the rules in `AIMS`, from the fate of each kind of defect, and the rules in their order.

    A duplicate of another scene counts as dropped by `NEAR`: equal uids or bytes never join two scenes.
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

    Where an injected copy stays for its scene, it changes places with the original.
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
