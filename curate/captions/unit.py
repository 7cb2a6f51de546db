"""Tables `answers` and `captions` of a unit: what is written for its kept rows, and what the gates say of it.

In: the unit's kept rows, engines. Out: `answers`, one row a request, as engines returned them; `captions`, one row a
request too: the answer's text and its verdicts. Sections follow each other, since a text may be made of an earlier
section's; each batch of requests is written before the next one is sent, in parts where it takes long.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from curate.base import ids, schema
from curate.base.numeric.arrays import I64
from curate.captions.engines import open_engine
from curate.captions.judge import Answered, judge
from curate.captions.regions import find_unit_regions
from curate.captions.rows import Rows, make_requests
from curate.captions.settings import CaptionSettings
from curate.captions.work import Captioned, check_requests, sum_unit
from curate.llm.cache import AnswerCache, answer_table
from curate.llm.engine import Answer, Engine, Request
from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.recipe.captions import Task
from curate.recipe.source import find_source
from curate.run.context import RunContext
from curate.run.units import Answer as UnitsAnswer
from curate.run.units import Units
from curate.store import checkpoints
from curate.store.checkpoints import Checkpoints
from curate.store.layout import caption_statistics_file
from curate.store.manifest import check_written
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import time_step

_TABLES = ("answers", "captions")
_NO_IMAGE = Answer(None, "no_image: the input ends before its row")


def caption(
    units: Units, context: RunContext, audit: UnitsAnswer, counts: UnitsAnswer | None
) -> tuple[UnitsAnswer, UnitsAnswer]:
    """Write the captions of each unit, once `audit`, of all units, says that the pool is not too damaged.

    `counts` are the survivors' (int64[entries]), None without match. Returns the audit, once all texts are written and
    not too many requests failed, and the list of Captioned.
    """
    captioned = units.ask("Caption: texts", _caption, audit, counts, context)
    return units.get("Caption: check", check_requests, audit, captioned, context.recipe.max_failed), captioned


def _caption(
    tables: OpenTables, unit: Unit, audit: Any, counts: I64 | None, context: RunContext
) -> Iterator[Captioned]:
    with time_step(context.store, "caption", unit.name) as timer:
        timer.rows = audit.kept.get(unit.index, 0)
        yield caption_unit(CaptionSettings.of(context), unit, tables, counts)


def caption_unit(settings: CaptionSettings, unit: Unit, tables: UnitTables, counts: I64 | None) -> Captioned:
    """Write the `answers`, `captions` and `regions` of a decided unit, unless they are current.

    `counts` int64[entries] are the rows of each entry among the survivors; None without match.
    """
    key = settings.key(unit, tables.key("decisions"))
    images = UnitRereader(unit, find_source(settings.sources, unit.source), tables)
    if settings.captions.regions and not tables.is_current("regions", key, adopt=False):
        find_unit_regions(settings, tables, images, Rows.read(tables, counts), key)
    ticket = f"captions/{unit.name}"
    if tables.store.complete(ticket):  # of another attempt, since the run started
        return sum_unit(settings, unit, tables)
    cache = AnswerCache(tables, settings.reuse)
    cache.restore_spent()
    statistics = caption_statistics_file(tables.unit)
    are_current = all(tables.is_current(name, key, adopt=False) for name in _TABLES)
    if are_current and tables.store.exists(statistics) and check_written(tables.store, statistics):
        cache.delete_parts()
        return sum_unit(settings, unit, tables)
    rows = Rows.read(tables, counts)
    answers, texts = schema.ANSWERS.empty_table(), schema.CAPTIONS.empty_table()
    judged = Checkpoints(tables.store, "judged", tables.unit, key)
    for task in settings.captions.tasks:
        rows = rows.with_sources(texts, task.section.source)
        answered = _answer(settings, task, rows, make_requests(settings, tables, task, rows), cache, images)
        answers = pa.concat_tables([answers, answered.answers])
        texts = pa.concat_tables([texts, judge(settings, tables, answered, judged)])
    # Without their key they are written again by the next start, and what failed is sent again.
    is_final = answers["error"].null_count == len(answers)
    content = ids.table_digest(texts.select(["uid", "kind", "style", "ordinal", "text", "gate"]))
    with tables.store.together(ticket) as store:  # another attempt may have other answers, and texts of these
        store.write_json(statistics, cache.spent())
        aside = UnitTables(store, tables.unit)
        aside.write("answers", answers, key, is_final=is_final)
        aside.write("captions", texts, key, {"content": content}, is_final)
    for name in _TABLES:
        tables.drop_read(name)
    cache.delete_parts()
    judged.delete()
    return sum_unit(settings, unit, tables)


def _answer(
    settings: CaptionSettings, task: Task, rows: Rows, requests: list[Request], cache: AnswerCache, images: UnitRereader
) -> Answered:
    """Return an answer for each request of a section; cached ones are not sent."""
    spec, engine_id = settings.captions.engines[task.section.engine], settings.model_of(task)
    digests = [request.digest(engine_id) for request in requests]
    known = cache.find(digests)
    missing = [i for i, digest in enumerate(digests) if digest not in known]
    missing.sort(key=lambda i: (requests[i].group, i))
    size = task.section.batch or spec.section.batch_size
    for first in range(0, len(missing), size):
        batch = missing[first : first + size]
        sent = _with_images(images, rows, [requests[i] for i in batch])
        for answers, seconds in _ask(open_engine(spec, engine_id), sent):
            part = [batch[place] for place in answers]
            of_part = [requests[i] for i in part], [digests[i] for i in part], [*answers.values()]
            cache.add(answer_table(*of_part), seconds)
            known |= zip(*of_part[1:], strict=True)
    return Answered(task, rows, requests, answer_table(requests, digests, [known[digest] for digest in digests]))


def _ask(engine: Engine, requests: Sequence[Request | None]) -> Iterator[tuple[dict[int, Answer], float]]:
    """Yield answers by place, and the engine's seconds: those that came within an interval, then the others.

    A request is None where its image cannot be read again.
    """
    answers = {place: _NO_IMAGE for place, request in enumerate(requests) if request is None}
    sent = [(place, request) for place, request in enumerate(requests) if request is not None]
    began = time.monotonic()
    for number, answer in engine.answers([request for _, request in sent]):
        answers[sent[number][0]] = answer
        if (seconds := time.monotonic() - began) >= checkpoints.INTERVAL:
            yield answers, seconds
            answers, began = {}, time.monotonic()
    if answers:
        yield answers, time.monotonic() - began


def _with_images(images: UnitRereader, rows: Rows, requests: list[Request]) -> Sequence[Request | None]:
    """Return the requests with their image's file, if any has one; None where it cannot be read again."""
    if not any(request.picture for request in requests):
        return requests
    wanted, of_request = np.unique(rows.rows[rows.places(requests)], return_inverse=True)
    files = list(images.images(wanted))
    pairs = ((request, files[place]) for request, place in zip(requests, of_request, strict=True))
    return [None if image is None else replace(request, image=image) for request, image in pairs]
