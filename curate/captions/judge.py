"""Table `captions` of one section: the texts that answers hold, and what the gates say of each.

In: a unit's kept rows, requests and answers of one section. Out: `schema.CAPTIONS`, a row a request: `status` ok or why there
is no text, `clip_score` the cosine of text and image where the model's embeddings are kept, `gate` passed or the first
gate that failed. A row without an answer is not judged: its `gate` is null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curate import schema
from curate.captions.gates.checks import Entries, Scores, entry_weights
from curate.captions.gates.gates import Candidates, run_gates
from curate.captions.rows import Rows
from curate.captions.settings import CaptionSettings
from curate.engines.engine import Request
from curate.metadata.unit import load_matcher
from curate.numeric.arrays import F32
from curate.numeric.vectors import embedding_matrix, normalised
from curate.recipe.captions import Task
from curate.signals.registry import load_encoder_of
from curate.store.tables import UnitTables

_MAX_ANSWER = 20_000  # characters of an answer that are looked at: what is longer is no caption


@dataclass(frozen=True)
class Answered:
    """The requests of one section, in order, and their answers."""

    task: Task
    rows: Rows  # the unit's kept rows
    requests: Sequence[Request]
    answers: pa.Table  # `schema.ANSWERS`, a row a request

    @cached_property
    def of_row(self) -> npt.NDArray[np.int64]:
        """int64 [requests], the place of each request's row among the rows."""
        places = {uid: place for place, uid in enumerate(self.rows.column("uid").to_pylist())}
        return np.array([places[request.uid] for request in self.requests], np.int64)

    @cached_property
    def texts(self) -> pa.Array:
        """string [requests], null where an answer holds none."""
        texts = [
            None if answer is None else self.task.section.text_of(answer[:_MAX_ANSWER], request.style)
            for request, answer in zip(self.requests, self.answers["answer"].to_pylist(), strict=True)
        ]
        return pa.array(texts, pa.string())


def judge(settings: CaptionSettings, tables: UnitTables, answered: Answered) -> pa.Table:
    """Return the rows of table `captions`."""
    section, rows, answers, texts = answered.task.section, answered.rows, answered.answers, answered.texts
    scores = _scores(settings, tables, answered)
    own = pa.array(answered.of_row)
    candidates = Candidates(
        profile=section.profile,
        texts=texts,
        originals=rows.column("caption").take(own),
        sources=rows.sources.take(own) if section.source else None,
        prompts=(section.load_template().text,),
        examples=section.examples(),
        languages=[section.language(request.style) for request in answered.requests],
        finish=answers["finish"].combine_chunks(),
        entries=_entries(settings, rows, texts, own),
        **scores,
    )
    verdicts = run_gates(candidates, settings.captions.gates)
    errors = answers["error"].to_pylist()
    columns = {
        **{name: answers[name] for name in ("uid", "kind", "style", "ordinal")},
        "text": texts,
        "model": pa.repeat(settings.model_of(answered.task), len(texts)),
        "prompt": answers["digest"],
        "clip_score": scores["clip"].texts if scores else pa.nulls(len(texts), pa.float32()),
        "gate": pc.if_else(texts.is_valid(), verdicts.first, None),
        "tokens": answers["tokens_out"],
        "status": [schema.OK if error is None else error.partition(":")[0] for error in errors],
        "error": [None if error is None else error.partition(": ")[2] for error in errors],
        "failed": pc.if_else(texts.is_valid(), verdicts.failed, None),
    }
    return pa.table(columns, schema=schema.CAPTIONS)


def _entries(settings: CaptionSettings, rows: Rows, texts: pa.Array, own: pa.Array) -> Entries | None:
    if rows.entry_ids is None or rows.counts is None or settings.match is None:
        return None
    matched = load_matcher(settings.match).match(texts.fill_null(""))
    # As if the commonest entry were in half of the rows: it weighs little, and still something.
    weights = entry_weights(rows.counts, 2 * int(rows.counts.max(initial=1)))
    return Entries(matched, rows.entry_ids.take(own), weights)


def _scores(settings: CaptionSettings, tables: UnitTables, answered: Answered) -> dict[str, Scores]:
    """Return how well texts and captions fit their images, by the model that the gates name, where its embeddings are kept.

    `clip` are CLIP scores, and `f_clip` F-CLIPScores where they are measured.
    """
    if settings.scorer is None:
        return {}
    encoder = load_encoder_of(settings.signals, settings.scorer.name)
    column = tables.read("embeddings", [f"{settings.scorer.prefix}image"]).column(0)
    rows, of_row, texts = answered.rows, answered.of_row, answered.texts
    images = normalised(embedding_matrix(column)[rows.rows])
    valid = texts.is_valid().to_numpy(zero_copy_only=False)
    given, captions = texts.drop_null().to_pylist(), rows.column("caption").to_pylist()

    def scores(own: F32, originals: F32) -> Scores:
        of_texts = np.full(len(texts), np.nan, np.float32)
        of_texts[valid] = own
        return Scores(pa.array(of_texts, mask=np.isnan(of_texts)), pa.array(originals[of_row]))

    def cosines(images: F32, texts: list[str]) -> F32:
        return np.asarray(np.einsum("ij,ij->i", images, encoder.encode_texts(texts).embeddings), np.float32)

    def f_scores(images: F32, texts: list[str]) -> F32:
        return np.array([score.f_clipscore for score in encoder.score_words(images, texts)], np.float32)

    found = {"clip": scores(cosines(images[of_row[valid]], given), cosines(images, captions))}
    if "f_clipscore" not in settings.captions.gates.off and settings.scorer.scores_words:
        found["f_clip"] = scores(f_scores(images[of_row[valid]], given), f_scores(images, captions))
    return found
