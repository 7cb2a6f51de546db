"""How many of each planted defect each rule of the demo caught, from the truth and the run's decisions."""

from collections import Counter
from dataclasses import dataclass

import pyarrow.parquet as pq

from curate.demo.pool import DEFECTS, DUPLICATES
from curate.job import Job
from curate.schema import DUPLICATE
from curate.shards.commit import Folder


@dataclass(frozen=True)
class Caught:
    """A kind of defect: how many were planted, and how many of them each rule dropped (`kept` among the rules)."""

    defect: str
    planted: int
    rules: dict[str, int]


def score(truth_path: str, run: str) -> list[Caught]:
    """Joins the truth with the decisions, by shard and key.

    Of two duplicates the smaller uid stays, often the planted copy: a duplicate counts as caught by `duplicate` if
    either of the two was dropped as one.
    """
    truth = pq.read_table(truth_path).to_pylist()
    verdicts = _verdicts(Folder(run))
    caught = {defect: Counter[str]() for defect in ("", *DEFECTS)}
    for sample in truth:
        rule = verdicts[sample["shard"].rsplit("/", 1)[-1], sample["key"]]
        if sample["defect"] in DUPLICATES and rule != DUPLICATE:
            original = next((r for (_, key), r in verdicts.items() if key == sample["original_key"]), rule)
            rule = DUPLICATE if original == DUPLICATE else rule
        caught[sample["defect"]][rule] += 1
    return [Caught(defect or "(clean)", rules.total(), dict(rules)) for defect, rules in caught.items()]


def _verdicts(folder: Folder) -> dict[tuple[str, str], str]:
    verdicts = {}
    for path in folder.files("tables/decisions"):
        unit = int(path.rsplit("/", 1)[-1].split(".")[0])
        decisions = folder.read_parquet(path, ["rule"])["rule"].to_pylist()
        samples = folder.read_parquet(Job.table("samples", unit), ["shard", "key"]).to_pylist()
        for sample, rule in zip(samples, decisions, strict=True):
            verdicts[sample["shard"].rsplit("/", 1)[-1], sample["key"]] = rule or "kept"
    return verdicts
