"""Table `captions` of one section: the texts that answers hold, and what the gates say of each.

In: a unit's kept rows, requests and answers of one section. Out: `schema.CAPTIONS`, a row a request: `status` ok or why there
is no text, `clip_score` the cosine of text and image where the model's embeddings are kept, `gate` passed or the first
gate that failed. A row without an answer is not judged: its `gate` is null.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import schema
from curate.captions.gates.checks import Bounds, Entries, Scores, entry_weights
from curate.captions.gates.gates import Candidates, GateOptions, run_gates
from curate.captions.kinds import rewrite
from curate.captions.requests import Rows, make_text, template_of
from curate.engines.request import Answer, Request
from curate.metadata.unit import MatchSettings, load_entries
from curate.models.encoder import load_encoder
from curate.numeric.vectors import embedding_matrix, normalised
from curate.pool.plan import Unit
from curate.recipe.captions import Rewrite, Task
from curate.run.context import RunContext
from curate.signals import clip

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Written:
    """What was asked for and what came.

    Attributes:
        task: the section that asked for it.
        rows: the unit's kept rows.
        of_row: int64 [n], the place of each request's row among them.
        texts: string [n], null where an answer holds none.
    """

    task: Task
    rows: Rows
    requests: Sequence[Request]
    answers: Sequence[Answer]
    of_row: npt.NDArray[np.int64]
    texts: pa.Array

    @classmethod
    def of(cls, task: Task, rows: Rows, requests: Sequence[Request], answers: Sequence[Answer]) -> "_Written":
        places = {uid: place for place, uid in enumerate(rows.column("uid").to_pylist())}
        of_row = np.array([places[request.uid] for request in requests], np.int64)
        texts = [
            None if answer.text is None else make_text(task, request, answer.text)
            for request, answer in zip(requests, answers, strict=True)
        ]
        return cls(task, rows, requests, answers, of_row, pa.array(texts, pa.string()))


def judge(
    context: RunContext,
    unit: Unit,
    task: Task,
    rows: Rows,
    requests: Sequence[Request],
    digests: Sequence[str],
    answers: Sequence[Answer],
) -> pa.Table:
    """The table; `answers` are those of the requests, in order."""
    written = _Written.of(task, rows, requests, answers)
    none = written.texts.is_null().to_numpy(zero_copy_only=False)
    similar = _similarities(context, unit, written)
    first, failed = _verdicts(context, written, similar)
    errors = [answer.error for answer in answers]
    columns = {
        "uid": [request.uid for request in requests],
        "kind": [request.kind for request in requests],
        "style": [request.style for request in requests],
        "ordinal": [request.ordinal for request in requests],
        "text": written.texts,
        "model": pa.repeat(context.engine_ids[task.section.engine], len(requests)),
        "prompt": list(digests),
        "clip_score": similar.clip if similar else pa.nulls(len(requests), pa.float32()),
        "gate": pa.array(first, mask=none),
        "tokens": [answer.tokens_out for answer in answers],
        "status": [schema.OK if error is None else error.partition(":")[0] for error in errors],
        "error": [None if error is None else error.partition(": ")[2] for error in errors],
        "failed": pa.array(failed, pa.list_(pa.string()), mask=none),
    }
    return pa.table(columns, schema=schema.CAPTIONS)


def _verdicts(
    context: RunContext, written: _Written, similar: "_Similar | None"
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """`gate` and `failed` of each request; styles that are languages are judged one by one."""
    task, rows, requests, answers = written.task, written.rows, written.requests, written.answers
    kind = task.kind
    first, failed = np.full(len(requests), "", object), np.full(len(requests), None, object)
    styles = np.array([request.style for request in requests], object)
    for group in dict.fromkeys(styles) if kind == "translation" else ["*"] * bool(len(requests)):
        chosen = np.flatnonzero((styles == group) | (group == "*")).tolist()
        texts = written.texts.take(pa.array(chosen))
        own = pa.array(written.of_row[chosen])
        candidates = Candidates(
            kind=kind,
            texts=texts,
            originals=rows.column("caption").take(own),
            sources=rows.recaptions.take(own) if kind == "fused" else None,
            prompts=(template_of(task).text,),
            examples=_examples(task.section) if isinstance(task.section, Rewrite) else (),
            wanted=group if kind == "translation" else None,
            tokens=pa.array([answers[i].tokens_out or None for i in chosen], pa.int32()),
            finish=pa.array([answers[i].finish for i in chosen], pa.string()),
            entries=_entries(context, rows, texts, own),
            clip=None if similar is None else similar.scores(chosen),
            f_clip=None if similar is None else similar.f_scores(chosen),
        )
        found = run_gates(candidates, _options(context))
        first[chosen] = found.first.to_pylist()
        for place, names in zip(chosen, found.failed.to_pylist(), strict=True):
            failed[place] = names
    return first, failed


def _options(context: RunContext) -> GateOptions:
    assert context.recipe.captions is not None
    gates = context.recipe.captions.gates
    bounds = Bounds(min_words=gates.words[0], max_words=gates.words[1])
    return GateOptions(
        off=frozenset(gates.off),
        length=bounds,
        entries_kept=gates.entries,
        names_kept=gates.names,
        clip_margin=gates.clip_score,
        f_clip_margin=gates.f_clipscore,
    )


def _examples(section: Rewrite) -> list[str]:
    pairs = [pair for style in section.styles for pair in rewrite.load_pairs(style)]
    return [text for pair in pairs for text in pair]


def _entries(context: RunContext, rows: Rows, texts: pa.Array, own: pa.Array) -> Entries | None:
    if rows.entry_ids is None or rows.counts is None:
        return None
    matched = load_entries(MatchSettings.of(context)).matcher.match(texts.fill_null(""))
    # As if the commonest entry were in half of the rows: it weighs little, and still something.
    weights = entry_weights(rows.counts, 2 * int(rows.counts.max(initial=1)))
    return Entries(matched, rows.entry_ids.take(own), weights)


class _Similar:
    """How well texts and captions fit their images, by the gates' model."""

    def __init__(self, clip: F32, originals: F32, f_clip: F32 | None, f_originals: F32 | None) -> None:
        self.clip = pa.array(clip, mask=np.isnan(clip))
        self._originals, self._f, self._f_originals = originals, f_clip, f_originals

    def scores(self, chosen: list[int]) -> Scores:
        """CLIP scores of these requests."""
        return Scores(self.clip.take(pa.array(chosen)), pa.array(self._originals[chosen]))

    def f_scores(self, chosen: list[int]) -> Scores | None:
        """F-CLIPScores of these requests, where they are measured."""
        if self._f is None or self._f_originals is None:
            return None
        return Scores(pa.array(self._f[chosen]), pa.array(self._f_originals[chosen]))


def _similarities(context: RunContext, unit: Unit, written: _Written) -> _Similar | None:
    """By the model that the gates name, where its embeddings are kept; None where there is none."""
    assert context.recipe.captions is not None
    gates = context.recipe.captions.gates
    options = next((c for c in context.recipe.measure.clip if c.name == gates.of and c.embeddings), None)
    if options is None:
        return None
    encoder = load_encoder(clip.resolved(options, context.models[options.name]))
    column = context.read("embeddings", unit, [f"{options.prefix}image"]).column(0)
    rows, of_row, texts = written.rows, written.of_row, written.texts
    images = normalised(embedding_matrix(column)[rows.rows])
    there = texts.is_valid().to_numpy(zero_copy_only=False)
    scores = np.full(len(texts), np.nan, np.float32)
    given = texts.drop_null().to_pylist()
    if given:
        scores[there] = np.einsum("ij,ij->i", images[of_row[there]], encoder.encode_texts(given).embeddings)
    captions = rows.column("caption").to_pylist()
    originals = np.einsum("ij,ij->i", images, encoder.encode_texts(captions).embeddings).astype(np.float32)
    f_texts = f_originals = None
    if "f_clipscore" not in gates.off and options.words:
        f_texts = np.full(len(texts), np.nan, np.float32)
        f_texts[there] = [s.f_clipscore for s in encoder.score_words(images[of_row[there]], given)]
        f_originals = np.array([s.f_clipscore for s in encoder.score_words(images, captions)], np.float32)[of_row]
    return _Similar(scores, originals[of_row], f_texts, f_originals)
