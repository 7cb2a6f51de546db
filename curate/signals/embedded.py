"""The signals on embeddings, as a recipe asks for them: heads, fooling, contexts, classes, axes, clusters.

Each gets a model's embeddings of a unit and gives its columns, by the functions of `heads`, `embedding_scores` and
`gda`. Prompts and exemplars are encoded by that same model, once per process.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate import ids, schema
from curate.errors import RecipeError, RunError
from curate.models import heads
from curate.models.encoder import load_encoder
from curate.numeric import embedding_scores, gda
from curate.numeric.embedding_scores import Tags
from curate.numeric.vectors import embedding_matrix, normalised
from curate.pool.exemplars import picture_files, read_pictures
from curate.pool.image import ImageOptions, measure_image
from curate.process import process_cache
from curate.recipe.measure import (
    Axis,
    Classes,
    Clip,
    Clusters,
    Context,
    Embedder,
    Fooling,
    Head,
    Measure,
    OfEmbeddings,
)
from curate.recipe.section import UserPaths
from curate.signals.clusters import Clusters as Centroids
from curate.signals.clusters import load_clusters
from curate.signals.signal import F32, Embeddings, Signal
from curate.store.facts import read_facts
from curate.store.store import RunStore


def signals(measure: Measure, models: Mapping[str, Any], keys: Mapping[str, str]) -> Iterator[Signal]:
    """The recipe's signals on embeddings, in the order of their columns.

    Args:
        measure: the recipe's section.
        models: what each head and each set of exemplars is, from `identify_files`.
        keys: the key of each model of `measure.clip`, by name: embeddings are what these signals depend on.
    """
    embedders = {one.name: one for one in measure.embedders}
    for name, options in measure.on_embeddings.items():
        key = ids.digest([keys[options.of], type(options).__name__, 1, _asked(options), models.get(name)])
        yield _signal(name, options, embedders[options.of], key, models.get(name))


def _where_there(column: pa.Array, given: Embeddings, options: OfEmbeddings) -> pa.Array:
    """Null where a row lacks the embedding that the signal is of."""
    side = given.texts if isinstance(options, Head) and options.input == "text" else given.images
    return pc.if_else(pa.array(side.any(axis=1)), column, pa.scalar(None, column.type))


def _unchanged(name: str, made: Any, identity: Any) -> Any:
    """What was made of a file. Raises RunError where it is another one than when the run was prepared."""
    if isinstance(made, heads.Head | Centroids) and made.digest != identity:
        raise RunError(f"measure: the file of {name!r} changed during the run; run again")
    return made


def _signal(name: str, options: OfEmbeddings, embedder: Embedder, key: str, identity: Any) -> Signal:
    kind = _KINDS[type(options)]

    def made() -> Any:
        return process_cache(key, lambda: _unchanged(name, kind.make(name, options, embedder), identity))

    return Signal(
        name=name,
        columns=_columns(name, options),
        key=key,
        compute=lambda given: [_where_there(column, given, options) for column in kind.compute(given, options, made())],
        ready=made,
        of=options.of,
    )


def identify_files(measure: Measure, models: Mapping[str, Any]) -> dict[str, Any]:
    """The digest of each head's file, and of the exemplars of each axis and class.

    Raises:
        RecipeError: a file is not there or not what it is taken for, or a head does not fit its model of `models`.
    """
    found: dict[str, Any] = {}
    for name, head in measure.heads.items():
        loaded, dimension = heads.load_head(head.path, head.activation, head.output), models[head.of]["dimension"]
        if loaded.dimension != dimension:
            raise RecipeError(
                f"measure.heads.{name}: {head.path} is for embeddings of {loaded.dimension} dimensions; those of "
                f"{head.of!r} ({models[head.of].get('model', 'brought by the pool')}) have {dimension}"
            )
        found[name] = loaded.digest
    for name, clusters in measure.clusters.items():
        made, dimension = load_clusters(name, clusters), models[clusters.of]["dimension"]
        if made.centroids.shape[1] != dimension:
            raise RecipeError(
                f"measure.clusters.{name}: {clusters.centroids} holds {list(made.centroids.shape)}; accepted: [k, {dimension}], "
                f"since embeddings of {clusters.of!r} have {dimension} dimensions"
            )
        found[name] = made.digest
    if measure.fooling and measure.fooling.shift:
        found["fooling"] = _run_identity(measure.fooling.shift, models[measure.fooling.of])
    for name, axis in measure.axes.items():
        found[name] = [
            _digests(f"axes.{name}.{side}", paths) for side, paths in (("good", axis.good), ("bad", axis.bad))
        ]
    for name, classes in measure.classes.items():
        found[name] = {c: _digests(f"classes.{name}.examples.{c}", paths) for c, paths in classes.examples.items()}
    return found


def _run_identity(path: str, model: Mapping[str, Any]) -> Any:
    """What names the embeddings of a finished run. Raises RecipeError where it has none of this model."""
    folder = RunStore(path)
    where = f"measure.fooling.shift: {path}"
    if not folder.exists("_SUCCESS"):
        raise RecipeError(f"{where} is not a finished run; accepted: the --out of one with embeddings: true")
    run = read_facts(folder)
    weights = [known["weights"] for known in run.models.values() if isinstance(known, dict) and "weights" in known]
    if "embeddings" not in run.keys or model["weights"] not in weights:
        raise RecipeError(f"{where} keeps no embeddings of {model['model']} with these weights")
    return run.keys["embeddings"]


def _asked(options: OfEmbeddings) -> dict[str, Any]:
    """What the recipe says of a signal, but where its files lie."""
    asked = options.model_dump(exclude={"path", "good", "bad", "of", "shift", "centroids"})
    if isinstance(options, Classes):
        asked["examples"] = list(options.examples)
    if isinstance(options, Clusters):
        asked["winners"] = options.winners is not None
    if isinstance(options, Context):
        asked["values"] = list(options.values.items())
    return asked


def _columns(name: str, options: OfEmbeddings) -> tuple[pa.Field, ...]:
    if isinstance(options, (Context, Classes)):
        return pa.field(name, pa.string()), pa.field(f"{name}_probability", pa.float32())
    if isinstance(options, Clusters):
        wins = [pa.field(f"{name}_wins", pa.bool_())] if options.winners else []
        return pa.field(name, pa.int32()), *wins
    return (pa.field(name, pa.float32()),)


def _load_head(name: str, options: Head, clip: Embedder) -> heads.Head:
    return heads.load_head(options.path, options.activation, options.output)


def _score_head(given: Embeddings, options: Head, head: heads.Head) -> Sequence[pa.Array]:
    return [pa.array(head.apply(normalised(given.images if options.input == "image" else given.texts)))]


def _fooling(name: str, options: Fooling, clip: Clip) -> tuple[F32, F32 | None]:
    """The prompts' embeddings, and the shift, where there is to be one."""
    prompts = load_encoder(clip).encode_texts(options.prompts).embeddings
    return prompts, None if options.shift is None else run_shift(options.shift, clip.prefix)


def _score_fooling(given: Embeddings, options: Fooling, made: tuple[F32, F32 | None]) -> Sequence[pa.Array]:
    return [pa.array(embedding_scores.fooling_score(normalised(given.images), *made))]


def run_shift(run: str, prefix: str) -> F32:
    """The mean shift g of all embeddings of a finished run by a model, whose columns begin with `prefix`."""
    folder = RunStore(run)
    sums: list[Any] = [0.0, 0.0]
    count = 0
    for path in folder.files("tables/embeddings"):
        table = folder.read_parquet(path, [f"{prefix}image", f"{prefix}text"])
        for side, column in enumerate(table.columns):
            rows = embedding_matrix(column).astype(np.float64)
            sums[side] = sums[side] + rows.sum(axis=0)
        count += int(rows.any(axis=1).sum())
    images, texts = ((total / count)[None].astype(np.float32) for total in sums)
    return embedding_scores.mean_shift(images, texts)


def _context_prompts(name: str, options: Context, clip: Clip) -> F32:
    """Of the prompts [z, d], or of classes and prompts [y, z, d]."""
    named = [[p.replace("{}", word) for p in options.values.values()] for word in options.classes or ("",)]
    encoded = load_encoder(clip).encode_texts([text for texts in named for text in texts]).embeddings
    return encoded.reshape(len(named), len(options.values), -1) if options.classes else encoded


def _tag_contexts(given: Embeddings, options: Context, prompts: F32) -> Sequence[pa.Array]:
    tag = embedding_scores.tag_contexts_of_classes if options.classes else embedding_scores.tag_contexts
    return _tagged(tag(normalised(given.images), prompts, options.temperature), list(options.values))


def _fit(name: str, options: Classes, clip: Clip) -> tuple[gda.Classifier, F32 | None]:
    where = f"measure.classes.{name}.examples"
    parts = [encode_exemplars(f"{where}.{key}", clip, paths) for key, paths in options.examples.items()]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    texts = [options.prompts[key] for key in options.examples] if options.prompts else None
    encoded = None if texts is None else load_encoder(clip).encode_texts(texts).embeddings
    try:
        return gda.fit_classifier(np.concatenate(parts), labels, len(parts)), encoded
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _classify(given: Embeddings, options: Classes, made: tuple[gda.Classifier, F32 | None]) -> Sequence[pa.Array]:
    classifier, texts = made
    return _tagged(classifier.classify(normalised(given.images), texts, options.alpha), list(options.examples))


def _axis(name: str, options: Axis, clip: Clip) -> F32:
    where = f"measure.axes.{name}"
    good, bad = (
        encode_exemplars(f"{where}.{side}", clip, paths)
        for side, paths in (("good", options.good), ("bad", options.bad))
    )
    try:
        return embedding_scores.quality_axis(good, bad)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None


def _score_axis(given: Embeddings, options: Axis, axis: F32) -> Sequence[pa.Array]:
    return [pa.array(embedding_scores.quality_score(normalised(given.images), axis))]


def _load_clusters(name: str, options: Clusters, clip: Embedder) -> Centroids:
    return load_clusters(name, options)


def _find_clusters(given: Embeddings, options: Clusters, clusters: Centroids) -> Sequence[pa.Array]:
    return clusters.find(normalised(given.images))


class _Kind(NamedTuple):
    """A kind of signal: what all units share, made once, and the columns of a unit by it."""

    make: Callable[[str, Any, Any], Any]
    compute: Callable[[Embeddings, Any, Any], Sequence[pa.Array]]


_KINDS: dict[type[OfEmbeddings], _Kind] = {
    Head: _Kind(_load_head, _score_head),
    Fooling: _Kind(_fooling, _score_fooling),
    Context: _Kind(_context_prompts, _tag_contexts),
    Classes: _Kind(_fit, _classify),
    Axis: _Kind(_axis, _score_axis),
    Clusters: _Kind(_load_clusters, _find_clusters),
}


def _tagged(tags: Tags, names: list[str]) -> Sequence[pa.Array]:
    """The best tag's name and its probability."""
    return [pa.array(names, pa.string()).take(pa.array(tags.best)), pa.array(tags.probability)]


def encode_exemplars(where: str, clip: Clip, paths: UserPaths) -> F32:
    """Embeddings of images (files, or tars of them), float32 [n, dimension], in order. Raises RecipeError."""
    encoder = load_encoder(clip)
    views = []
    for name, data in read_pictures(picture_files(where, paths)):
        fact = measure_image(data, ImageOptions(looks=(encoder.view,)))
        if fact.status != schema.OK or fact.views[0] is None:
            raise RecipeError(f"{where}: {name} cannot be read as an image: {fact.error or fact.status}")
        views.append(fact.views[0])
    if not views:
        raise RecipeError(f"{where}: no image in {paths}")
    made: list[F32] = [encoder.encode_images(views[at : at + 32]).cpu().numpy() for at in range(0, len(views), 32)]
    return np.concatenate(made)


def _digests(where: str, paths: UserPaths) -> list[str]:
    return [hashlib.sha256(data).hexdigest() for _, data in read_pictures(picture_files(f"measure.{where}", paths))]
