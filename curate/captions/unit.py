"""Tables `answers` and `captions` of a unit: what is written for its kept rows, and what the gates say of it.

In: the unit's kept rows, engines. Out: `answers`, one row a request, as engines gave them; `captions`, one row a request
too: the text that is made of the answer, and its verdicts. Requests are made and judged section by section, since a fused
text is made of a recaption; they are sent batch by batch, and each batch stands before the next one is sent.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.captions.cache import Cache, Spent, answer_table
from curate.captions.engines import open_engine
from curate.captions.gates.gates import PASSED
from curate.captions.judge import judge
from curate.captions.mix import count_replaced
from curate.captions.regions.unit import find_unit_regions, is_failure
from curate.captions.requests import Rows, make_requests
from curate.engines.request import Answer, Request
from curate.errors import RunError
from curate.pool.plan import Unit
from curate.pool.reader import UnitReader
from curate.recipe.captions import Fuse, Kind
from curate.run.context import RunContext

I64 = npt.NDArray[np.int64]


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


def caption_unit(context: RunContext, unit: Unit, counts: I64 | None) -> Captioned:
    """Writes the unit's `answers` and `captions`, unless they stand.

    Args:
        context: the run.
        unit: after its decisions stand.
        counts: int64[entries], rows of each entry among the survivors; None without match.
    """
    key = ids.digest([context.captions_key(unit), context.decided(unit)])
    captions = context.recipe.captions
    assert captions is not None
    if captions.regions and not context.store.is_current(context.table("regions", unit), key):
        find_unit_regions(context, unit, Rows.read(context, unit, counts), key)
    if all(context.store.is_current(context.table(name, unit), key) for name in ("answers", "captions")):
        Cache(context, unit).forget_parts()
        return _captioned(context, unit)
    rows = Rows.read(context, unit, counts)
    cache = Cache(context, unit)
    answers: list[pa.Table] = []
    made: list[pa.Table] = []
    for task in captions.tasks:
        if isinstance(task.section, Fuse):
            rows = rows.with_recaptions(pa.concat_tables(made), task.section.style)
        requests = make_requests(context, unit, task, rows)
        digests = [request.digest(context.engine_ids[task.section.engine]) for request in requests]
        found = _ask(context, unit, task.section, rows, requests, digests, cache)
        answers.append(answer_table(requests, digests, found))
        made.append(judge(context, unit, task, rows, requests, digests, found))
    answered = pa.concat_tables([schema.ANSWERS.empty_table(), *answers])
    texts = pa.concat_tables([schema.CAPTIONS.empty_table(), *made])
    # Without its key it is made again, and asks for what failed alone.
    _write(context, unit, answered, texts, cache, "" if answered["error"].null_count < len(answered) else key)
    return _captioned(context, unit)


def _write(context: RunContext, unit: Unit, answers: pa.Table, texts: pa.Table, cache: Cache, key: str) -> None:
    """Puts the tables into place, and what was spent on them."""
    content = ids.table_digest(texts.select(["uid", "kind", "style", "ordinal", "text", "gate"]))
    spent: dict[str, dict[str, Any]] = {}
    for (kind, style), one in cache.spent().items():
        spent.setdefault(kind, {})[style] = one._asdict()
    context.store.write_json(f"tables/captions/{unit.name}_stats.json", spent)
    context.write("answers", unit, answers, key)
    context.write("captions", unit, texts, key, {"content": content})
    cache.forget_parts()


def summarise(context: RunContext, captioned: Iterable[Captioned]) -> list[dict[str, Any]]:
    """Rows of schema.CAPTION_WORK, of the whole run."""
    assert context.recipe.captions is not None
    captioned = list(captioned)
    rows = []
    for kind, engine in dict.fromkeys((task.kind, task.section.engine) for task in context.recipe.captions.tasks):
        total = _sum(one.work.get((kind, engine), Work()) for one in captioned)
        price = context.recipe.captions.engines[engine].price
        cost = (total.sent_in * price.input + total.sent_out * price.output) / 1e6 + total.seconds / 3600 * price.hour
        about = {"kind": kind, "engine": engine, "model": context.engine_ids[engine]}
        numbers = {name: value for name, value in total._asdict().items() if not name.startswith("sent_")}
        rows.append(about | numbers | {"cost": cost if price.input or price.output or price.hour else None})
    return rows


def check_requests(context: RunContext, captioned: Iterable[Captioned]) -> None:
    """Raises RunError where more requests failed than the recipe's max_failed allows; names the reasons."""
    captioned = list(captioned)
    total = sum(one.requests for one in captioned)
    errors: dict[str, tuple[int, str]] = {}
    for one in sorted(captioned, key=lambda one: one.unit.index):
        for reason, (count, example) in one.errors.items():
            before, first = errors.get(reason, (0, example))
            errors[reason] = (before + count, first)
    failed = sum(count for count, _ in errors.values())
    if failed and failed / total > context.recipe.max_failed:
        lines = [f"  {reason} {count:,}, such as {example}" for reason, (count, example) in sorted(errors.items())]
        raise RunError(
            "\n".join(
                [
                    f"{failed:,} of {total:,} requests for captions ({failed / total:.1%}) have no answer, and max_failed is "
                    f"{context.recipe.max_failed}",
                    *lines,
                    "What was answered stands: run again to ask for the rest, or with --set max_failed="
                    f"{min(100, 100 * failed // total + 1) / 100} to go on without",
                ]
            )
        )


def _ask(
    context: RunContext,
    unit: Unit,
    kind: Kind,
    rows: Rows,
    requests: Sequence[Request],
    digests: Sequence[str],
    cache: Cache,
) -> list[Answer]:
    """An answer for each request: those that are known are not sent."""
    assert context.recipe.captions is not None
    known = cache.find(digests)
    missing = [i for i, digest in enumerate(digests) if digest not in known]
    missing.sort(key=lambda i: (requests[i].group, i))
    failed: dict[str, Answer] = {}
    engine = open_engine(context.recipe.captions, kind.engine) if missing else None
    size = kind.batch or context.recipe.captions.engines[kind.engine].batch
    for first in range(0, len(missing), size):
        assert engine is not None
        batch = missing[first : first + size]
        asked, lost = _with_images(context, unit, rows, [requests[i] for i in batch])
        began = time.time()
        answers = engine.ask(asked)
        seconds = time.time() - began
        at = iter(answers)
        all_answers = [lost.get(place) or next(at) for place in range(len(batch))]
        cache.add([requests[i] for i in batch], [digests[i] for i in batch], all_answers, seconds)
        for i, answer in zip(batch, all_answers, strict=True):
            (known if answer.error is None else failed)[digests[i]] = answer
    return [known.get(digest) or failed[digest] for digest in digests]


def _with_images(
    context: RunContext, unit: Unit, rows: Rows, requests: list[Request]
) -> tuple[list[Request], dict[int, Answer]]:
    """The requests with their image's file, those that have one; and what of them cannot be asked, by place."""
    if not any(request.picture for request in requests):
        return requests, {}
    places = dict(zip(rows.column("uid").to_pylist(), rows.rows.tolist(), strict=True))
    wanted = np.array(sorted({places[request.uid] for request in requests}), np.int64)
    files = dict(
        zip(
            wanted.tolist(),
            UnitReader(unit, context.source(unit), context.unit_tables(unit)).images(wanted),
            strict=True,
        )
    )
    asked, lost = [], {}
    for place, request in enumerate(requests):
        image = files[places[request.uid]]
        if image is None:
            lost[place] = Answer(None, "no_image: the input ends before it")
        else:
            asked.append(replace(request, image=image))
    return asked, lost


def _captioned(context: RunContext, unit: Unit) -> Captioned:
    errors: dict[str, tuple[int, str]] = {}
    lost = context.read("answers", unit, ["error"])["error"].drop_null().to_pylist()
    work = _work(context, unit)
    if "regions" in context.tables:
        looked = context.read("regions", unit, ["error"])["error"].to_pylist()
        failed = [error for error in looked if is_failure(error)]
        work["regions", ""] = Work(requests=len(looked), failed=len(failed))
        lost += failed
    for error, count in Counter(lost).most_common():
        reason, _, detail = error.partition(": ")
        before, example = errors.get(reason, (0, detail))
        errors[reason] = (before + count, example)
    return Captioned(unit, work, errors)


def _work(context: RunContext, unit: Unit) -> dict[tuple[str, str], Work]:
    """What the unit's texts took, by kind and engine: a text's style tells which engine wrote it."""
    assert context.recipe.captions is not None
    answers = context.read("answers", unit, ["kind", "style", "error", "tokens_in", "tokens_out"])
    passed = pc.equal(context.read("captions", unit, ["gate"])["gate"], PASSED)  # a row a request, as in answers
    sums = answers.append_column("passed", pc.fill_null(passed, False)).group_by(["kind", "style"])
    wanted = [([], "count_all"), ("error", "count"), *((c, "sum") for c in ("passed", "tokens_in", "tokens_out"))]
    stats = f"tables/captions/{unit.name}_stats.json"
    spent = context.store.read_json(stats) if context.store.exists(stats) else {}
    replaced = count_replaced(context, unit)
    work: dict[tuple[str, str], Work] = {}
    for own in sums.aggregate(wanted).to_pylist():
        of = own["kind"], own["style"]
        here = Spent(**spent.get(of[0], {}).get(of[1], {}))
        one = Work(
            requests=own["count_all"],
            sent=here.sent,
            failed=own["error_count"],
            passed=own["passed_sum"],
            replaced=replaced[of],
            tokens_in=own["tokens_in_sum"],
            tokens_out=own["tokens_out_sum"],
            seconds=here.seconds,
            sent_in=here.tokens_in,
            sent_out=here.tokens_out,
        )
        by = of[0], context.recipe.captions.engine_of(*of)
        work[by] = _sum([work.get(by, Work()), one])
    return work


def _sum(works: Iterable[Work]) -> Work:
    return Work(*(sum(numbers) for numbers in zip(*works, strict=True)))
