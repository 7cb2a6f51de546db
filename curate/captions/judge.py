"""Table `captions` of one section: the texts that answers hold, and what the gates say of each.

In: a unit's kept rows, requests and answers of one section. Out: `schema.CAPTIONS`, a row a request: `status` ok or why
there is no text, `clip_score` the cosine of text and image where the model's embeddings are kept, `gate` passed or the
first gate that failed, null without an answer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base import ids, schema
from curate.base.numeric.arrays import F32, I64
from curate.base.numeric.vectors import embedding_matrix, normalised
from curate.captions.gates.gate import Candidates, Entries, Scores, run_gates
from curate.captions.gates.measured import entry_weights
from curate.captions.gates.text_columns import to_texts
from curate.captions.rows import Rows
from curate.captions.settings import CaptionSettings
from curate.llm.engine import Request
from curate.match.unit import load_matcher
from curate.models.encoder import Encoder
from curate.recipe.captions import Task
from curate.signals.registry import load_encoder_of
from curate.store.checkpoints import Checkpoints
from curate.store.tables import UnitTables

_STEP_ROWS = 2048  # requests that are judged at a time, see `Checkpoints`
_MAX_ANSWER = 20_000  # characters of an answer that are looked at: what is longer is no caption


class Answered(NamedTuple):
    """The requests of one section, in order, and their answers."""

    task: Task
    rows: Rows  # the unit's kept rows
    requests: Sequence[Request]
    answers: pa.Table  # `schema.ANSWERS`, a row a request


def judge(settings: CaptionSettings, tables: UnitTables, answered: Answered, checkpoints: Checkpoints) -> pa.Table:
    """Return the rows of table `captions`; `checkpoints` are those of the unit."""
    scorer = _Scorer.of(settings, tables, answered.rows)

    def steps(first: int) -> Iterator[pa.Table]:
        for start in range(first, len(answered.requests), _STEP_ROWS):
            step = slice(start, start + _STEP_ROWS)
            some = answered._replace(requests=answered.requests[step], answers=answered.answers[step])
            yield _judge_rows(settings, some, scorer)

    sources = pa.table({"source": answered.rows.sources})
    of = [answered.task.key, ids.table_digest(answered.answers), ids.table_digest(sources)]
    return checkpoints.complete(of, schema.CAPTIONS, steps)


def _judge_rows(settings: CaptionSettings, answered: Answered, scorer: "_Scorer | None") -> pa.Table:
    """Return the rows of table `captions` of some of the requests."""
    (task, rows, requests, answers), section = answered, answered.task.section
    pairs = zip(requests, answers["answer"].to_pylist(), strict=True)
    written = [None if text is None else section.text_of(text[:_MAX_ANSWER], of.style) for of, text in pairs]
    texts, of_row = pa.array(written, pa.string()), rows.places(requests)
    scores = scorer.score(of_row, texts) if scorer else {}
    candidates = Candidates(
        relation=section.relation,
        texts=texts,
        originals=rows.column("caption").take(of_row),
        sources=rows.sources.take(of_row) if section.source else None,
        prompts=(section.load_template().text,),
        examples=section.shown_examples(),
        languages=[section.language(request.style) for request in requests],
        finish=answers["finish"].combine_chunks(),
        entries=_entries(settings, rows, texts, of_row),
        **scores,
    )
    verdicts = run_gates(candidates, settings.captions.gates)
    errors = answers["error"].to_pylist()
    columns = {
        **{name: answers[name] for name in ("uid", "kind", "style", "ordinal")},
        "text": texts,
        "model": pa.repeat(settings.model_of(task), len(texts)),
        "prompt": answers["digest"],
        "clip_score": scores["clip"].texts if scores else pa.nulls(len(texts), pa.float32()),
        "gate": pc.if_else(texts.is_valid(), verdicts.first, None),
        "tokens": answers["tokens_out"],
        "status": [schema.OK if error is None else error.partition(":")[0] for error in errors],
        "error": [None if error is None else error.partition(": ")[2] for error in errors],
        "failed": pc.if_else(texts.is_valid(), verdicts.failed, None),
    }
    return pa.table(columns, schema=schema.CAPTIONS)


def _entries(settings: CaptionSettings, rows: Rows, texts: pa.Array, of_row: I64) -> Entries | None:
    if rows.entry_ids is None or rows.counts is None or settings.match is None:
        return None
    matched = load_matcher(settings.match).match(texts.fill_null(""))
    # As if the commonest entry were in half of the rows: it weighs little, and still something.
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
        """Return that of a unit's kept rows; None where the model's embeddings are not kept."""
        if settings.scorer is None:
            return None
        encoder = load_encoder_of(settings.signals, settings.scorer.name)
        column = tables.read("embeddings", [f"{settings.scorer.prefix}image"]).column(0)
        images = normalised(embedding_matrix(column)[rows.rows])
        has_words = settings.captions.gates.needs("f_clip") and settings.scorer.scores_words
        return cls(encoder, images, to_texts(rows.column("caption")), has_words)

    def score(self, of_row: I64, texts: pa.Array) -> dict[str, Scores]:
        """Return CLIP scores, `clip`, and F-CLIPScores, `f_clip`, where measured; `of_row` is each text's row."""
        valid = np.asarray(texts.is_valid())
        rows, place = np.unique(of_row, return_inverse=True)
        written = self._measure(self.images[of_row[valid]], to_texts(texts.drop_null()))
        originals = self._measure(self.images[rows], [self.captions[row] for row in rows])
        scores = {}
        for name in written:
            of_texts = np.full(len(texts), np.nan, np.float32)
            of_texts[valid] = written[name]
            scores[name] = Scores(pa.array(of_texts, mask=np.isnan(of_texts)), pa.array(originals[name][place]))
        return scores

    def _measure(self, images: F32, texts: list[str]) -> dict[str, F32]:
        cosines = np.einsum("ij,ij->i", images, self.encoder.encode_texts(texts).embeddings)
        scores = {"clip": np.asarray(cosines, np.float32)}
        if self.has_words:
            f_scores = [score.f_clipscore for score in self.encoder.score_words(images, texts)]
            scores["f_clip"] = np.array(f_scores, np.float32)
        return scores
