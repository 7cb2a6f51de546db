"""How many of each injected defect each rule of the demo caught, from the truth and the run's decisions."""

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from curate.demo.pool import DEFECTS, DUPLICATES, NEAR_DUPLICATES
from curate.schema import DUPLICATE
from curate.store.layout import table_file
from curate.store.store import RunStore

CLEAN = "(clean)"
NEAR = "of them near"  # the line of the near-duplicates, below that of all duplicates


@dataclass(frozen=True)
class Caught:
    """What became of a kind of defect.

    Attributes:
        defect: its name, or `CLEAN`.
        injected: the rows that have it.
        rules: how many of them each rule dropped; `kept` is among the rules.
        mistaken: how many were dropped as a duplicate of a sample that shows another scene.
    """

    defect: str
    injected: int
    rules: dict[str, int]
    mistaken: int = 0


# The rules of the demo that drop what is wrong with a sample, and the injected defects that each is for.
AIMS: dict[str, tuple[str, ...]] = {
    "failed": ("truncated_image", "not_an_image", "empty_image", "caption_not_utf8", "empty_caption", "no_caption"),
    "english": ("language",),
    "words": (),
    "characters": (),
    "side": ("tiny",),
    "aspect": ("extreme",),
    "boilerplate": ("boilerplate",),
    "aligned": ("wrong_caption",),
    DUPLICATE: (*DUPLICATES, *NEAR_DUPLICATES),
}


@dataclass(frozen=True)
class Rate:
    """How right a rule was.

    Attributes:
        rule: its name, or `NEAR`.
        dropped: the rows that it dropped.
        precision: the share of them with a defect of those that it is for, or of any other kind injected; of duplicates,
            the share that shows the scene of the sample that stays for them. None of none.
        injected: rows with a defect that it is for.
        recall: the share of them that it dropped, or a rule before it. None of none.
    """

    rule: str
    dropped: int
    precision: float | None
    injected: int
    recall: float | None


@dataclass(frozen=True)
class _Verdict:
    """What became of a sample: the rule that dropped it, or `kept`; and the uid that stays for it, else ''."""

    uid: str
    rule: str
    stays: str


def rate(caught: list[Caught], order: list[str]) -> list[Rate]:
    """Return the rates of the rules in `AIMS`, from the fate of each kind of defect, and the rules in their order.

    Whatever was taken for a duplicate of another scene counts as dropped by `NEAR`: no equal keys join two scenes.
    """
    rates = []
    for place, rule in enumerate(order):
        if rule not in AIMS:
            continue
        fallen = {line.defect: sum(line.rules.get(name, 0) for name in order[: place + 1]) for line in caught}
        injected = {line.defect: line.injected for line in caught if line.defect in AIMS[rule]}
        dropped = sum(line.rules.get(rule, 0) for line in caught)
        if rule == DUPLICATE:
            mistaken = sum(line.mistaken for line in caught)
            near = {line.defect: line for line in caught if line.defect in NEAR_DUPLICATES}
            right = sum(line.rules.get(rule, 0) - line.mistaken for line in near.values())
            rates.append(_rate(rule, dropped, dropped - mistaken, injected, fallen))
            rates.append(_rate(NEAR, right + mistaken, right, {name: near[name].injected for name in near}, fallen))
        else:
            clean = sum(line.rules.get(rule, 0) for line in caught if line.defect == CLEAN)
            rates.append(_rate(rule, dropped, dropped - clean, injected, fallen))
    return rates


def _rate(rule: str, dropped: int, right: int, injected: dict[str, int], fallen: dict[str, int]) -> Rate:
    total = sum(injected.values())
    fell = sum(fallen[defect] for defect in injected)
    return Rate(rule, dropped, right / dropped if dropped else None, total, fell / total if total else None)


def score(truth_path: str, run: str) -> list[Caught]:
    """Join the truth with the decisions, by shard and key.

    Of the samples that show one scene any may stay, often a injected copy: then it changes places with the original, as
    it is the copies that were too many.
    """
    truth = {(sample["shard"], sample["key"]): sample for sample in pq.read_table(truth_path).to_pylist()}
    verdicts = _verdicts(RunStore(run))
    scenes = {place: sample["original_key"] or sample["key"] for place, sample in truth.items()}
    stays = {verdict.uid: place for place, verdict in verdicts.items() if verdict.rule != DUPLICATE}
    mistaken = Counter[str]()
    for place, sample in truth.items():
        verdict = verdicts[place]
        if verdict.rule == DUPLICATE:
            other = stays[verdict.stays]
            if scenes[other] != scenes[place]:
                mistaken[sample["defect"]] += 1
            elif not sample["original_key"]:
                verdicts[place], verdicts[other] = verdicts[other], verdict
    caught = {defect: Counter[str]() for defect in ("", *DEFECTS)}
    for place, sample in truth.items():
        caught[sample["defect"]][verdicts[place].rule] += 1
    return [Caught(defect or CLEAN, rules.total(), dict(rules), mistaken[defect]) for defect, rules in caught.items()]


def _verdicts(folder: RunStore) -> dict[tuple[str, str], _Verdict]:
    """Return the verdict on each sample, by the name of its shard and its key."""
    verdicts = {}
    for path in folder.files("tables/decisions"):
        unit = int(path.rsplit("/", 1)[-1].split(".")[0])
        decisions = folder.read_parquet(path, ["uid", "rule", "duplicate_of"]).to_pylist()
        samples = folder.read_parquet(table_file("samples", unit), ["shard", "key"]).to_pylist()
        for sample, decision in zip(samples, decisions, strict=True):
            place = sample["shard"].rsplit("/", 1)[-1], sample["key"]
            verdicts[place] = _Verdict(
                decision["uid"] or "", decision["rule"] or "kept", decision["duplicate_of"] or ""
            )
    return verdicts
