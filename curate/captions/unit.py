"""Writes a unit's tables `answers` and `captions`: new texts for its kept rows, and the gates' verdicts on them.

In: the unit's kept rows, engines. Out: `answers`, one row per request, as engines returned them; and `captions`, one
row per request (see `Captions.gives`), where `gate` is null without an answer. Sections run in order, since a text may
be made from an earlier section's text.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.errors import TransientError
from curate.base.numeric.arrays import F32, I64
from curate.base.numeric.vectors import embedding_matrix, normalized
from curate.base.process import cleaned_up
from curate.captions.gates.gate import Candidates, Entries, Scores, run_gates
from curate.captions.gates.measured import entry_weights
from curate.captions.gates.text_columns import to_texts
from curate.captions.isolate import Captioner, open_captioner
from curate.captions.regions import write_regions
from curate.captions.rows import Rows, make_requests
from curate.captions.settings import CaptionSettings
from curate.captions.work import Captioned, check_requests, sum_unit
from curate.llm.cache import AnswerCache, answer_table, delete_parts
from curate.llm.engine import Answer, Request
from curate.match.unit import load_matcher
from curate.models.encoder import Encoder
from curate.pool.plan import Unit
from curate.pool.reread import UnitRereader
from curate.recipe.captions import EngineSpec
from curate.recipe.section import Requested
from curate.recipe.source import find_source
from curate.run.context import RunContext
from curate.run.units import Answer as Asked
from curate.run.units import Units
from curate.signals.registry import load_encoder_of
from curate.store import checkpoints
from curate.store.checkpoints import Checkpoints, begun_files
from curate.store.layout import unit_parts
from curate.store.tables import OpenTables, UnitTables
from curate.store.timings import time_step

Requests = Sequence[Request | None]  # None: its image is missing
_BATCH_ROWS = 2048  # answers per call of the gates
_MAX_ANSWER = 20_000  # characters of an answer that gates read; nothing longer is a caption
_NO_IMAGE = Answer(None, "no_image: the input ends before the sample's row")


def caption(units: Units, context: RunContext, audit: Asked, counts: Asked | None) -> tuple[Asked, Asked]:
    """Write each unit's captions after `audit` has checked that the pool is not too damaged.

    `counts` are entry counts of the surviving rows (int64[entries]), or None if the recipe does not match. Returns the
    audit, which also raises RunError if too many requests failed, and the list of `Captioned`.
    """
    captioned = units.ask("Caption: texts", _texts, audit, counts, context)
    return units.get("Caption: check", check_requests, audit, captioned, context.recipe.max_failed), captioned


def _texts(tables: OpenTables, unit: Unit, audit: Any, counts: I64 | None, context: RunContext) -> Iterator[Captioned]:
    with time_step(context.store, "caption", unit.name) as timer:
        timer.rows = audit.kept.get(unit.index, 0)
        yield caption_unit(CaptionSettings.of(context), unit, tables, counts)


def caption_unit(settings: CaptionSettings, unit: Unit, tables: UnitTables, counts: I64 | None) -> Captioned:
    """Write a decided unit's `answers`, `captions` and `regions`, unless they are current; `counts` as for `caption`.

    Two attempts may get different answers. So the first `answers` are kept, and the key of `captions` includes their
    digest.
    """
    key = settings.key(unit, tables.key("decisions"))
    is_new = tables.reuse is None and not tables.exists("answers")
    has_answers = not is_new and tables.is_done("answers", key, adopt=False)
    has_regions = not settings.captions.regions or tables.is_done("regions", key, adopt=False)
    if not (has_regions and has_answers and tables.is_done("captions", _texts_key(key, tables), adopt=False)):
        rows, images = Rows.read(tables, counts), UnitRereader(unit, find_source(settings.sources, unit.source), tables)
        with open_captioner(settings, tables) as (captioner, on_progress):
            if not has_regions:
                write_regions(settings, images, rows, key, captioner.find_regions, on_progress)
            parts = begun_files(tables.store, unit_parts("answers", tables.unit))
            judged = Checkpoints(tables.store, "answers", tables.unit, key, parts)
            work = _UnitWork(settings, tables, rows, images, key, captioner, parts, judged, on_progress)
            texts = None if has_answers else work.write_answers(is_new)
            work.write_texts(work.judge_all() if texts is None else texts)
            if has_answers:
                delete_parts(tables)
            elif not captioner.is_over:
                judged.delete()
    return sum_unit(settings, unit, tables)


def _texts_key(key: str, tables: UnitTables) -> str:
    """Return the key of `captions`, from the key and content of the unit's existing `answers`."""
    return ids.digest([key, tables.note("answers").get("content")])


@dataclass(frozen=True)
class _UnitWork:
    settings: CaptionSettings
    tables: UnitTables
    rows: Rows
    images: UnitRereader
    key: str  # the key of `answers`
    captioner: Captioner
    parts: list[str]  # files with answers, and with texts made from them, that an earlier attempt left
    judged: Checkpoints  # texts with their verdicts
    on_progress: Callable[[], None]  # called after answers or texts are written to parts

    def write_answers(self, is_new: bool) -> pa.Table | None:
        """Send the requests that are not cached, and write `answers`. Return their texts.

        If another attempt has already written `answers`, discard these, and return None.
        """
        cache = AnswerCache(self.tables, self.settings.reuse, is_new, self.parts, self.on_progress)
        with cleaned_up(cache.flush):
            answers, texts = self._answer_and_judge(lambda task, rows: self._answer(task, rows, cache), cache.flush)
            note = {"content": ids.table_digest(answers)}
            # Without a key, the next start writes the table again and retries failed requests.
            is_final = answers["error"].null_count == len(answers)
            is_put = self.tables.write("answers", answers, self.key, note, is_final)
            if not self.captioner.is_over:  # else keep the partial answers for the next start
                cache.delete_parts()
        return texts if is_put else None

    def judge_all(self) -> pa.Table:
        """Return the texts of the existing `answers`; a text's style shows which section wrote it."""
        answers = self.tables.read("answers")

        def find(task: Requested, _: Rows) -> pa.Table:
            styles = pc.is_in(answers["style"], pa.array(task.section.all_styles, pa.string()))
            return answers.filter(pc.and_(pc.equal(answers["kind"], pa.scalar(task.section.kind)), styles))

        return self._answer_and_judge(find, lambda: None)[1]

    def write_texts(self, texts: pa.Table) -> None:
        """Write `captions`.

        Raises TransientError if another start of the run has replaced the answers. This happens only after one of the
        two processes lost contact.
        """
        tables, key = self.tables, _texts_key(self.key, self.tables)
        now = UnitTables(tables.store, tables.unit)
        replaced = TransientError(f"{tables.store.path(tables.file('answers'))}: another process replaced the answers")

        def keep() -> bool:
            if _texts_key(self.key, now) != key:
                raise replaced
            return now.keep("captions", key)

        note = {"content": ids.table_digest(texts.select(["uid", "kind", "style", "ordinal", "text", "gate"]))}
        if not tables.write("captions", texts, key, note, keep=keep) and tables.key("captions") != key:
            raise replaced

    def _answer_and_judge(
        self, find_answers: Callable[[Requested, Rows], pa.Table], flush: Callable[[], None]
    ) -> tuple[pa.Table, pa.Table]:
        """Return the unit's `answers` and `captions`. Sections run in order: a text may be made from an earlier text.

        `find_answers` sends requests or reads existing answers. `flush` stores answers before the texts made from them.
        """

        def before_checkpoint() -> None:
            flush()
            self.on_progress()

        rows, answers, texts = self.rows, schema.ANSWERS.empty_table(), schema.CAPTIONS.empty_table()
        for task in self.settings.captions.requested:
            rows = rows.with_sources(texts, task.section.source)
            new = find_answers(task, rows)
            has_texts = new["answer"].null_count < len(new)
            scorer = _Scorer.of(self.settings, self.tables, rows) if has_texts else None
            step = partial(self._judge, task, rows, new, scorer)
            identity = [task.name, ids.table_digest(new), ids.table_digest(pa.table({"source": rows.sources}))]
            judged = self.judged.complete(identity, schema.CAPTIONS, step, before_checkpoint)
            answers, texts = pa.concat_tables([answers, new]), pa.concat_tables([texts, judged]).combine_chunks()
        return answers, texts

    def _answer(self, task: Requested, rows: Rows, cache: AnswerCache) -> pa.Table:
        settings, (kind, name) = self.settings, (task.section.kind, task.section.engine)
        requests = make_requests(settings, self.tables, task, rows)
        spec, engine_id = settings.captions.engines[name], settings.engine_ids[name]
        digests = [request.digest(engine_id) for request in requests]
        answered = {} if self.captioner.is_over else cache.find(digests)
        missing = [i for i, digest in enumerate(digests) if digest not in answered]
        missing.sort(key=lambda i: (requests[i].group, i))
        size = task.section.batch or spec.section.batch_size
        for first in range(0, len(missing), size):
            batch = missing[first : first + size]
            sent = self._with_images(rows, [requests[i] for i in batch])
            for answers, seconds in self._ask(spec, engine_id, sent):
                part = [batch[index] for index in answers]
                new = [requests[i] for i in part], [digests[i] for i in part], [*answers.values()]
                cache.add(answer_table(*new), seconds, kind, name)
                answered |= zip(*new[1:], strict=True)
        return answer_table(requests, digests, [answered[digest] for digest in digests])

    def _ask(self, spec: EngineSpec, engine_id: str, requests: Requests) -> Iterator[tuple[dict[int, Answer], float]]:
        """Yield answers by index, with the seconds that they took, at each interval. None: a request without image."""
        answers = {index: _NO_IMAGE for index, request in enumerate(requests) if request is None}
        indices, sent = [i for i, request in enumerate(requests) if request], list(filter(None, requests))
        began = time.monotonic()
        for number, answer in self.captioner.answers(spec, engine_id, sent):
            answers[indices[number]] = answer
            if (seconds := time.monotonic() - began) >= checkpoints.INTERVAL:
                yield answers, seconds
                answers, began = {}, time.monotonic()
        if answers:
            yield answers, time.monotonic() - began

    def _judge(
        self, task: Requested, rows: Rows, new: pa.Table, scorer: "_Scorer | None", first: int
    ) -> Iterator[pa.Table]:
        """Yield batches of rows of `captions`, starting at answer `first`."""
        section, settings = task.section, self.settings
        for start in range(first, len(new), _BATCH_ROWS):
            part = new[start : start + _BATCH_ROWS]
            styles, errors = part["style"].to_pylist(), part["error"].to_pylist()
            pairs = zip(styles, part["answer"].to_pylist(), strict=True)
            written = [None if text is None else section.text_of(text[:_MAX_ANSWER], style) for style, text in pairs]
            texts, of_row = pa.array(written, pa.string()), rows.indices(to_texts(part["uid"]))
            scores = scorer.score(of_row, texts) if scorer else {}
            candidates = Candidates(
                relation=section.relation,
                texts=texts,
                originals=rows.column("caption").take(of_row),
                sources=rows.sources.take(of_row) if section.source else None,
                prompts=(section.load_template().text,),
                examples=section.shown_examples(),
                languages=list(map(section.language, styles)),
                finish=part["finish"].combine_chunks(),
                entries=_entries(settings, rows, texts, of_row),
                **scores,
            )
            verdicts = run_gates(candidates, settings.captions.gates)
            columns = {
                **{name: part[name] for name in ("uid", "kind", "style", "ordinal")},
                "text": texts,
                "model": pa.repeat(settings.engine_ids[section.engine], len(texts)),
                "prompt": part["digest"],
                "clip_score": scores["clip"].texts if scores else pa.nulls(len(texts), pa.float32()),
                "gate": pc.if_else(texts.is_valid(), verdicts.first, None),
                "tokens": part["tokens_out"],
                "status": [schema.OK if error is None else error.partition(":")[0] for error in errors],
                "error": [None if error is None else error.partition(": ")[2] for error in errors],
                "failed": pc.if_else(texts.is_valid(), verdicts.failed, None),
            }
            yield pa.table(columns, schema=schema.CAPTIONS)

    def _with_images(self, rows: Rows, requests: list[Request]) -> Requests:
        if not any(request.picture for request in requests):
            return requests
        indices = rows.indices([request.uid for request in requests])
        wanted, file_of = np.unique(rows.rows[indices], return_inverse=True)
        files = list(self.images.images(wanted))
        pairs = zip(requests, (files[index] for index in file_of), strict=True)
        return [None if image is None else replace(request, image=image) for request, image in pairs]


def _entries(settings: CaptionSettings, rows: Rows, texts: pa.Array, of_row: I64) -> Entries | None:
    if rows.entry_ids is None or rows.counts is None or settings.match is None:
        return None
    languages = rows.column("language").take(pa.array(of_row, pa.int64()))
    matched = load_matcher(settings.match).match(texts.fill_null(""), languages)
    # Scaled as if the commonest entry were in half of the rows, so that even it has some weight.
    weights = entry_weights(rows.counts, 2 * int(rows.counts.max(initial=1)))
    return Entries(matched, rows.entry_ids.take(of_row), weights)


class _Scorer(NamedTuple):
    """Scores how well texts and captions fit their images, by the model that the gates name."""

    encoder: Encoder
    images: F32  # [rows, dimension], of unit length
    captions: list[str]
    has_words: bool  # whether F-CLIPScores are measured too

    @classmethod
    def of(cls, settings: CaptionSettings, tables: UnitTables, rows: Rows) -> "_Scorer | None":
        """Return the scorer for a unit's kept rows; None if the recipe does not keep the model's embeddings."""
        if settings.scorer is None:
            return None
        encoder = load_encoder_of(settings.signals, settings.scorer.name)
        column = tables.read("embeddings", [f"{settings.scorer.prefix}image"]).column(0)
        images = normalized(embedding_matrix(column)[rows.rows])
        has_words = settings.captions.gates.needs("f_clip") and settings.scorer.scores_words
        return cls(encoder, images, to_texts(rows.column("caption")), has_words)

    def score(self, of_row: I64, texts: pa.Array) -> dict[str, Scores]:
        """Return CLIP scores (`clip`) and, if measured, F-CLIPScores (`f_clip`); `of_row` is each text's row."""
        valid = np.asarray(texts.is_valid())
        rows, index = np.unique(of_row, return_inverse=True)
        written = self._measure(self.images[of_row[valid]], to_texts(texts.drop_null()))
        originals = self._measure(self.images[rows], [self.captions[row] for row in rows])
        scores = {}
        for name in written:
            of_texts = np.full(len(texts), np.nan, np.float32)
            of_texts[valid] = written[name]
            scores[name] = Scores(pa.array(of_texts, mask=~np.isfinite(of_texts)), pa.array(originals[name][index]))
        return scores

    def _measure(self, images: F32, texts: list[str]) -> dict[str, F32]:
        cosines = np.einsum("ij,ij->i", images, self.encoder.encode_texts(texts).embeddings)
        scores = {"clip": np.asarray(cosines, np.float32)}
        if self.has_words:
            f_scores = [score.f_clipscore for score in self.encoder.score_words(images, texts)]
            scores["f_clip"] = np.array(f_scores, np.float32)
        return scores
