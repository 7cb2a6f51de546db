"""Sums the cost of captions for a unit and a run: requests, failures, tokens, seconds and money, by kind and engine."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import RunError
from curate.captions.gates.gate import PASSED
from curate.captions.mix import count_replaced
from curate.captions.regions import is_failure
from curate.captions.settings import CaptionSettings
from curate.pool.plan import Unit
from curate.recipe.captions import Captions, Price
from curate.store.facts import CaptionWork
from curate.store.tables import UnitTables
from curate.store.timings import Sent

_COUNTED = ("requests", "failed", "passed", "replaced", "tokens_in", "tokens_out")  # see `CaptionWork`


@dataclass(frozen=True)
class Captioned:
    """The results and cost of a unit's requests."""

    unit: Unit
    work: dict[tuple[str, str], Counter[str]]  # _COUNTED by kind and engine; regions have the engine ""
    errors: dict[str, tuple[int, str]]  # reason → number of failed requests and the commonest detail


def sum_unit(settings: CaptionSettings, unit: Unit, tables: UnitTables) -> Captioned:
    """Return the results and cost of the requests of a unit whose tables exist."""
    answers = tables.read("answers", ["kind", "style", "error", "tokens_in", "tokens_out"])
    passed = pc.equal(tables.read("captions", ["gate"])["gate"], pa.scalar(PASSED))  # same rows as answers
    groups = answers.append_column("passed", passed).group_by(["kind", "style"])
    counted: list[Any] = [(name, "sum") for name in ("passed", "tokens_in", "tokens_out")]
    replaced = count_replaced(settings.captions, settings.seed, tables)
    work = defaultdict[tuple[str, str], Counter[str]](Counter)
    for row in groups.aggregate([*counted, ([], "count_all"), ("error", "count")]).to_pylist():
        kind, style = row["kind"], row["style"]
        of_engine = work[kind, settings.captions.engine_of(kind, style)]  # a text's style shows which engine wrote it
        of_engine.update(requests=row["count_all"], failed=row["error_count"], replaced=replaced[kind, style])
        of_engine.update({name: row[f"{name}_sum"] or 0 for name in ("passed", "tokens_in", "tokens_out")})
    lost = answers["error"].drop_null().to_pylist()
    if settings.captions.regions:
        errors = tables.read("regions", ["error"])["error"].to_pylist()
        failed = list(filter(is_failure, errors))
        work["regions", ""] = Counter(requests=len(errors), failed=len(failed))
        lost += failed
    parts = ((*str(error).partition(": ")[::2], count) for error, count in Counter(lost).most_common())
    return Captioned(unit, work, _sum_errors((reason, count, detail) for reason, detail, count in parts))


def _sum_errors(counts: Iterable[tuple[str, int, str]]) -> dict[str, tuple[int, str]]:
    errors: dict[str, tuple[int, str]] = {}
    for reason, count, detail in counts:
        before, first = errors.get(reason, (0, detail))
        errors[reason] = (before + count, first)
    return errors


def summarize(
    captions: Captions, engine_ids: dict[str, str], captioned: Sequence[Captioned], sent: dict[tuple[str, str], Sent]
) -> list[CaptionWork]:
    """Return the cost of captions in the whole run, by kind and engine; `sent` comes from `sum_sent`."""
    rows = []
    for kind, engine in dict.fromkeys((task.section.kind, task.section.engine) for task in captions.requested):
        total = Counter[str]()
        for unit in captioned:
            total.update(unit.work.get((kind, engine), {}))
        price, took = captions.engines[engine].price, sent.get((kind, engine), Sent())
        cost = price.cost(took.tokens_in, took.tokens_out, took.seconds) if price != Price() else None
        sending = {"sent": took.requests, "seconds": took.seconds, "tokens_sent": took.tokens_in + took.tokens_out}
        names = {"kind": kind, "engine": engine, "model": engine_ids[engine]}
        rows.append(CaptionWork(**names, **{name: total[name] for name in _COUNTED}, **sending, cost=cost))
    return rows


def check_requests(audit: Any, captioned: Sequence[Captioned], max_failed: float) -> Any:
    """Return `audit`. Raises RunError with the reasons if more requests failed than the recipe's max_failed allows."""
    units = sorted(captioned, key=lambda captions: captions.unit.index)
    total = sum(work["requests"] for unit in units for work in unit.work.values())
    errors = _sum_errors((reason, *count) for unit in units for reason, count in unit.errors.items())
    failed = sum(count for count, _ in errors.values())
    if failed and failed / total > max_failed:
        share, allowed = f"{failed / total:.1%}", min(100, 100 * failed // total + 1) / 100
        problem = f"{failed:,} of {total:,} caption requests ({share}) got no answer, but max_failed is {max_failed}"
        reasons = [f"  {reason} {count:,}, such as {example}" for reason, (count, example) in sorted(errors.items())]
        remedy = f"run again to retry the failed requests, or add --set max_failed={allowed} to continue without them"
        raise RunError("\n".join([problem, *reasons, f"curate has stored all answers so far: {remedy}"]))
    return audit
