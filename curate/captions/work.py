"""What captions took: requests, tokens, seconds and money by kind and engine, of a unit and of a run; and too many failures."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow.compute as pc

from curate.captions.cache import Spent
from curate.captions.gates.gates import PASSED
from curate.captions.mix import count_replaced
from curate.captions.regions.unit import is_failure
from curate.captions.settings import CaptionSettings
from curate.errors import RunError
from curate.pool.plan import Unit
from curate.recipe.captions import Captions
from curate.recipe.engines import Price
from curate.store.facts import CaptionWork
from curate.store.layout import caption_statistics_file
from curate.store.tables import UnitTables


class Work(NamedTuple):
    """What one kind took of one engine, see schema.CAPTION_WORK. `sent_in`, `sent_out`: tokens of what this run sent."""

    requests: int = 0
    sent: int = 0
    failed: int = 0
    passed: int = 0
    replaced: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    sent_in: int = 0
    sent_out: int = 0


@dataclass(frozen=True)
class Captioned:
    """What became of a unit's requests.

    Attributes:
        unit: the unit.
        work: by kind and engine; of regions the engine is empty.
        errors: how many requests have no answer, by reason, with the commonest detail: reason → (count, detail).
    """

    unit: Unit
    work: dict[tuple[str, str], Work]
    errors: dict[str, tuple[int, str]]

    @property
    def requests(self) -> int:
        """How many there are."""
        return sum(work.requests for work in self.work.values())


def sum_unit(settings: CaptionSettings, unit: Unit, tables: UnitTables) -> Captioned:
    """Return what became of the requests of a unit whose tables are there."""
    errors: dict[str, tuple[int, str]] = {}
    lost = tables.read("answers", ["error"])["error"].drop_null().to_pylist()
    work = _sum_answers(settings, tables)
    if settings.captions.regions:
        found = tables.read("regions", ["error"])["error"].to_pylist()
        failed = [error for error in found if is_failure(error)]
        work["regions", ""] = Work(requests=len(found), failed=len(failed))
        lost += failed
    for error, count in Counter(lost).most_common():
        reason, _, detail = error.partition(": ")
        before, example = errors.get(reason, (0, detail))
        errors[reason] = (before + count, example)
    return Captioned(unit, work, errors)


def _sum_answers(settings: CaptionSettings, tables: UnitTables) -> dict[tuple[str, str], Work]:
    """Return what the unit's texts took, by kind and engine: a text's style says which engine wrote it."""
    answers = tables.read("answers", ["kind", "style", "error", "tokens_in", "tokens_out"])
    passed = pc.equal(tables.read("captions", ["gate"])["gate"], PASSED)  # a row a request, as in answers
    sums = answers.append_column("passed", pc.fill_null(passed, False)).group_by(["kind", "style"])
    wanted = [([], "count_all"), ("error", "count"), *((c, "sum") for c in ("passed", "tokens_in", "tokens_out"))]
    stats = caption_statistics_file(tables.unit)
    spent = tables.store.read_json(stats) if tables.store.exists(stats) else {}
    replaced = count_replaced(settings.captions, settings.seed, tables)
    work: dict[tuple[str, str], Work] = {}
    for row in sums.aggregate(wanted).to_pylist():
        kind, style = row["kind"], row["style"]
        sent = Spent(**spent.get(kind, {}).get(style, {}))
        one = Work(
            requests=row["count_all"],
            sent=sent.sent,
            failed=row["error_count"],
            passed=row["passed_sum"],
            replaced=replaced[kind, style],
            tokens_in=row["tokens_in_sum"],
            tokens_out=row["tokens_out_sum"],
            seconds=sent.seconds,
            sent_in=sent.tokens_in,
            sent_out=sent.tokens_out,
        )
        by = kind, settings.captions.engine_of(kind, style)
        work[by] = _sum([work.get(by, Work()), one])
    return work


def summarise(captions: Captions, engine_ids: Mapping[str, str], captioned: Iterable[Captioned]) -> list[CaptionWork]:
    """Return what the captions of the whole run took, by kind and engine."""
    captioned = list(captioned)
    rows = []
    for kind, engine in dict.fromkeys((task.kind, task.section.engine) for task in captions.tasks):
        total = _sum(one.work.get((kind, engine), Work()) for one in captioned)
        price = captions.engines[engine].price
        cost = price.cost(total.sent_in, total.sent_out, total.seconds)
        numbers = {name: value for name, value in total._asdict().items() if not name.startswith("sent_")}
        about = {
            "kind": kind,
            "engine": engine,
            "model": engine_ids[engine],
            "cost": cost if price != Price() else None,
        }
        rows.append(CaptionWork(**about, **numbers))
    return rows


def check_requests(captioned: Iterable[Captioned], max_failed: float) -> None:
    """Raise RunError where more requests failed than the recipe's max_failed allows; names the reasons."""
    captioned = list(captioned)
    total = sum(one.requests for one in captioned)
    errors: dict[str, tuple[int, str]] = {}
    for one in sorted(captioned, key=lambda one: one.unit.index):
        for reason, (count, example) in one.errors.items():
            before, first = errors.get(reason, (0, example))
            errors[reason] = (before + count, first)
    failed = sum(count for count, _ in errors.values())
    if failed and failed / total > max_failed:
        lines = [f"  {reason} {count:,}, such as {example}" for reason, (count, example) in sorted(errors.items())]
        raise RunError(
            "\n".join(
                [
                    f"{failed:,} of {total:,} requests for captions ({failed / total:.1%}) have no answer, and max_failed is "
                    f"{max_failed}",
                    *lines,
                    "Answers so far are kept: run again to request the others, or with --set max_failed="
                    f"{min(100, 100 * failed // total + 1) / 100} to continue without them",
                ]
            )
        )


def _sum(works: Iterable[Work]) -> Work:
    return Work(*(sum(numbers) for numbers in zip(*works, strict=True)))
