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

from curate import schema
from curate.captions.gates.checks import Entries, Scores, entry_weights
from curate.captions.gates.gates import Candidates, run_gates
from curate.captions.rows import Rows
from curate.captions.settings import CaptionSettings
from curate.engines.request import Answer, Request
from curate.metadata.unit import load_entries
from curate.numeric.arrays import F32
from curate.numeric.vectors import embedding_matrix, normalised
from curate.recipe.captions import Task
from curate.signals.registry import load_encoder_of
from curate.store.tables import UnitTables

_MAX_ANSWER = 20_000  # characters of an answer that are looked at: what is longer is no caption


@dataclass(frozen=True)
class Answered:
    """The requests of one section, in order, and their answers.

    Attributes:
        task: the section.
        rows: the unit's kept rows.
        requests: by row.
        digests: of the requests.
        answers: of the requests.
    """

    task: Task
    rows: Rows
    requests: Sequence[Request]
    digests: Sequence[str]
    answers: Sequence[Answer]

    @cached_property
    def of_row(self) -> npt.NDArray[np.int64]:
        """int64 [requests], the place of each request's row among the rows."""
        places = {uid: place for place, uid in enumerate(self.rows.column("uid").to_pylist())}
        return np.array([places[request.uid] for request in self.requests], np.int64)

    @cached_property
    def texts(self) -> pa.Array:
        """string [requests], null where an answer holds none."""
        texts = [
            None if answer.text is None else self.task.section.text_of(answer.text[:_MAX_ANSWER], request.style)
            for request, answer in zip(self.requests, self.answers, strict=True)
        ]
        return pa.array(texts, pa.string())


def judge(settings: CaptionSettings, tables: UnitTables, answered: Answered) -> pa.Table:
    """Return the rows of table `captions`."""
    requests, answers, texts = answered.requests, answered.answers, answered.texts
    none = texts.is_null().to_numpy(zero_copy_only=False)
    similar = _similarities(settings, tables, answered)
    first, failed = _verdicts(settings, answered, similar)
    errors = [answer.error for answer in answers]
    columns = {
        "uid": [request.uid for request in requests],
        "kind": [request.kind for request in requests],
        "style": [request.style for request in requests],
        "ordinal": [request.ordinal for request in requests],
        "text": texts,
        "model": pa.repeat(settings.model_of(answered.task), len(requests)),
        "prompt": list(answered.digests),
        "clip_score": similar.clip if similar else pa.nulls(len(requests), pa.float32()),
        "gate": pa.array(first, mask=none),
        "tokens": [answer.tokens_out for answer in answers],
        "status": [schema.OK if error is None else error.partition(":")[0] for error in errors],
        "error": [None if error is None else error.partition(": ")[2] for error in errors],
        "failed": pa.array(failed, pa.list_(pa.string()), mask=none),
    }
    return pa.table(columns, schema=schema.CAPTIONS)


def _verdicts(
    settings: CaptionSettings, answered: Answered, similar: "_Similar | None"
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Return `gate` and `failed` of each request; styles of different languages are judged one by one."""
    section, rows, answers = answered.task.section, answered.rows, answered.answers
    first, failed = np.full(len(answers), "", object), np.full(len(answers), None, object)
    languages = np.array([section.language(request.style) for request in answered.requests], object)
    for language in dict.fromkeys(languages):
        chosen = np.flatnonzero([one == language for one in languages]).tolist()
        texts = answered.texts.take(pa.array(chosen))
        own = pa.array(answered.of_row[chosen])
        candidates = Candidates(
            profile=section.profile,
            texts=texts,
            originals=rows.column("caption").take(own),
            sources=rows.sources.take(own) if section.source else None,
            prompts=(section.load_template().text,),
            examples=section.examples(),
            language=language,
            finish=pa.array([answers[i].finish for i in chosen], pa.string()),
            entries=_entries(settings, rows, texts, own),
            clip=None if similar is None else similar.scores(chosen),
            f_clip=None if similar is None else similar.f_scores(chosen),
        )
        found = run_gates(candidates, settings.captions.gates)
        first[chosen] = found.first.to_pylist()
        for place, names in zip(chosen, found.failed.to_pylist(), strict=True):
            failed[place] = names
    return first, failed


def _entries(settings: CaptionSettings, rows: Rows, texts: pa.Array, own: pa.Array) -> Entries | None:
    if rows.entry_ids is None or rows.counts is None or settings.match is None:
        return None
    matched = load_entries(settings.match).matcher.match(texts.fill_null(""))
    # As if the commonest entry were in half of the rows: it weighs little, and still something.
    weights = entry_weights(rows.counts, 2 * int(rows.counts.max(initial=1)))
    return Entries(matched, rows.entry_ids.take(own), weights)


class _Similar:
    """How well texts and captions fit their images, by the gates' model."""

    def __init__(self, clip: F32, originals: F32, f_clip: F32 | None, f_originals: F32 | None) -> None:
        self.clip = pa.array(clip, mask=np.isnan(clip))
        self._originals, self._f, self._f_originals = originals, f_clip, f_originals

    def scores(self, chosen: list[int]) -> Scores:
        """Return CLIP scores of these requests."""
        return Scores(self.clip.take(pa.array(chosen)), pa.array(self._originals[chosen]))

    def f_scores(self, chosen: list[int]) -> Scores | None:
        """Return F-CLIPScores of these requests, where they are measured."""
        if self._f is None or self._f_originals is None:
            return None
        return Scores(pa.array(self._f[chosen]), pa.array(self._f_originals[chosen]))


def _similarities(settings: CaptionSettings, tables: UnitTables, answered: Answered) -> _Similar | None:
    """Return the scores by the model that the gates name, where its embeddings are kept; None where there is none."""
    if settings.scorer is None:
        return None
    encoder = load_encoder_of(settings.signals, settings.scorer.name)
    column = tables.read("embeddings", [f"{settings.scorer.prefix}image"]).column(0)
    rows, of_row, texts = answered.rows, answered.of_row, answered.texts
    images = normalised(embedding_matrix(column)[rows.rows])
    there = texts.is_valid().to_numpy(zero_copy_only=False)
    scores = np.full(len(texts), np.nan, np.float32)
    given = texts.drop_null().to_pylist()
    if given:
        scores[there] = np.einsum("ij,ij->i", images[of_row[there]], encoder.encode_texts(given).embeddings)
    captions = rows.column("caption").to_pylist()
    originals = np.einsum("ij,ij->i", images, encoder.encode_texts(captions).embeddings).astype(np.float32)
    f_texts = f_originals = None
    if "f_clipscore" not in settings.captions.gates.off and settings.scorer.scores_words:
        f_texts = np.full(len(texts), np.nan, np.float32)
        f_texts[there] = [s.f_clipscore for s in encoder.score_words(images[of_row[there]], given)]
        f_originals = np.array([s.f_clipscore for s in encoder.score_words(images, captions)], np.float32)[of_row]
    return _Similar(scores, originals[of_row], f_texts, f_originals)
