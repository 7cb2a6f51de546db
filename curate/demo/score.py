"""How many of each planted defect each rule of the demo caught, from the truth and the run's decisions."""

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from curate.demo.pool import DEFECTS, DUPLICATES
from curate.job import Job
from curate.schema import DUPLICATE
from curate.shards.commit import Folder

CLEAN = "(clean)"


@dataclass(frozen=True)
class Caught:
    """A kind of defect: how many were planted, and how many of them each rule dropped (`kept` among the rules)."""

    defect: str
    planted: int
    rules: dict[str, int]


# The defects that each rule of the demo is for.
AIMS = {
    "failed": ("truncated_image", "not_an_image", "empty_image", "caption_not_utf8", "empty_caption", "no_caption"),
    "english": ("language",),
    "side": ("tiny",),
    "aspect": ("extreme",),
    "boilerplate": ("boilerplate",),
    "aligned": ("wrong_caption",),
    DUPLICATE: DUPLICATES,
}


@dataclass(frozen=True)
class Rate:
    """How right a rule was.

    Attributes:
        rule: its name.
        dropped: the rows that it dropped.
        precision: the share of them with a defect of those that it is for, or of any other kind planted; None of none.
        planted: rows with a defect that it is for.
        recall: the share of them that it dropped, or a rule before it.
    """

    rule: str
    dropped: int
    precision: float | None
    planted: int
    recall: float


def rate(caught: list[Caught], order: list[str]) -> list[Rate]:
    """The rates of the rules in `AIMS`, from what became of each kind of defect, and the rules in their order."""
    rates = []
    for place, rule in enumerate(order):
        if rule not in AIMS:
            continue
        before = set(order[: place + 1])
        dropped = sum(line.rules.get(rule, 0) for line in caught)
        clean = sum(line.rules.get(rule, 0) for line in caught if line.defect == CLEAN)
        aims = [line for line in caught if line.defect in AIMS[rule]]
        fell = sum(count for line in aims for name, count in line.rules.items() if name in before)
        planted = sum(line.planted for line in aims)
        precision = (dropped - clean) / dropped if dropped else None
        rates.append(Rate(rule, dropped, precision, planted, fell / planted if planted else 0.0))
    return rates


def score(truth_path: str, run: str) -> list[Caught]:
    """Joins the truth with the decisions, by shard and key.

    Of two duplicates the smaller uid stays, often the planted copy: then the two change places, as it is the copy that
    was one too many.
    """
    truth = pq.read_table(truth_path).to_pylist()
    verdicts = _verdicts(Folder(run))
    places = {sample["key"]: (sample["shard"].rsplit("/", 1)[-1], sample["key"]) for sample in truth}
    for sample in truth:
        here, original = places[sample["key"]], places.get(sample["original_key"])
        if sample["defect"] in DUPLICATES and original and verdicts[original] == DUPLICATE != verdicts[here]:
            verdicts[original], verdicts[here] = verdicts[here], DUPLICATE
    caught = {defect: Counter[str]() for defect in ("", *DEFECTS)}
    for sample in truth:
        caught[sample["defect"]][verdicts[places[sample["key"]]]] += 1
    return [Caught(defect or CLEAN, rules.total(), dict(rules)) for defect, rules in caught.items()]


def _verdicts(folder: Folder) -> dict[tuple[str, str], str]:
    verdicts = {}
    for path in folder.files("tables/decisions"):
        unit = int(path.rsplit("/", 1)[-1].split(".")[0])
        decisions = folder.read_parquet(path, ["rule"])["rule"].to_pylist()
        samples = folder.read_parquet(Job.table("samples", unit), ["shard", "key"]).to_pylist()
        for sample, rule in zip(samples, decisions, strict=True):
            verdicts[sample["shard"].rsplit("/", 1)[-1], sample["key"]] = rule or "kept"
    return verdicts
