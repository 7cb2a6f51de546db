"""The definition of a decision, row by row in plain Python: what `curate.ask.whatif` is compared with."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pyarrow.parquet as pq

from curate.base import ids
from tests.kit.metaclip import inclusion

Row = dict[str, Any]
Rule = Callable[[Row], bool | None] | tuple[float, str]  # what a row must be, or the best fraction of a column


@dataclass
class Expected:
    """Rows by rule, survivors as `alive`; π of each survivor, and the rows that match each entry."""

    verdicts: Counter[str]
    survivors: list[tuple[Row, Fraction]]
    counts: Counter[int]

    @property
    def rows(self):
        return sum((pi for _, pi in self.survivors), Fraction())

    @property
    def variance(self):
        return sum((pi * (1 - pi) for _, pi in self.survivors), Fraction())

    def by(self, column):
        sums = {}
        for row, pi in self.survivors:
            sums[row[column]] = sums.get(row[column], Fraction()) + pi
        return sums


def read_rows(run):
    """Samples, scores and matches of a run, side by side."""
    rows = []
    for file in sorted((run / "tables/samples").glob("*.parquet")):
        parts = [pq.read_table(run / "tables" / name / file.name).to_pylist() for name in ("samples", "scores", "matches")
                 if (run / "tables" / name / file.name).exists()]  # fmt: skip
        rows += [{key: value for part in parts for key, value in part[i].items()} for i in range(len(parts[0]))]
    return rows


def decide(rows, rules, by, prefer=None, t=None):
    """Rules in order, unmatched, passes of deduplication, counts, π."""
    verdicts = Counter()
    alive = [row for row in rows if row["status"] == "ok"]
    verdicts["failed"] = len(rows) - len(alive)
    for name, rule in rules.items():
        if isinstance(rule, tuple):
            numbers = sorted((number for row in alive if usable(number := row[rule[1]])), reverse=True)
            cut = numbers[int(len(numbers) * rule[0])] if numbers else math.inf
            left = [row for row in alive if usable(row[rule[1]]) and row[rule[1]] >= cut]
        else:
            left = [row for row in alive if rule(row)]
        verdicts[name] = len(alive) - len(left)
        alive = left
    if rows and "entry_ids" in rows[0]:
        left = [row for row in alive if row["entry_ids"]]
        verdicts["unmatched"] = len(alive) - len(left)
        alive = left
    left = deduplicate(alive, by, prefer)
    verdicts["duplicate"] = len(alive) - len(left)
    verdicts["alive"] = len(left)
    counts = Counter(entry for row in left for entry in row.get("entry_ids", ()))
    survivors = [(row, inclusion(row["entry_ids"], counts, t, Fraction) if t else Fraction(1)) for row in left]
    return Expected(verdicts, survivors, counts)


def deduplicate(rows, by, prefer):
    def rank(row):
        best = row[prefer] if prefer and usable(row[prefer]) else -math.inf
        content = ids.hash64(f"{row['sha256'] or row['url'] or ''}\0{row['caption']}")
        return -best, row["uid"], content, row["unit"], row["row"]

    for column in by:
        best = {}
        for row in rows:
            if row[column] is not None and (row[column] not in best or rank(row) < rank(best[row[column]])):
                best[row[column]] = row
        rows = [row for row in rows if row[column] is None or best[row[column]] is row]
    return rows


def usable(number):
    return number is not None and not math.isnan(number)
