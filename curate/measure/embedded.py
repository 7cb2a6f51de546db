"""The signals on embeddings, as a recipe asks for them: heads, fooling, contexts, classes, axes, clusters.

Each gets a model's embeddings of a unit and gives its columns, by the functions of `heads`, `embedding_signals` and
`gda`. Prompts and exemplars are encoded by that same model, once per process.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curate import ids, schema
from curate.errors import RecipeError
from curate.measure import embedding_signals, gda, heads
from curate.measure.embedding_signals import Tags
from curate.measure.encoder import load_encoder
from curate.measure.gauge import F32, Embeddings, Signal, once
from curate.measure.image import ImageOptions, measure_image
from curate.measure_sections import Axis, Classes, Clip, Clusters, Context, Fooling, Head, Measure, OfEmbeddings, Paths
from curate.shards.commit import Folder
from curate.shards.listing import list_files


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
        compute = _COMPUTE[type(options)]
        yield Signal(
            name=name,
            columns=_columns(name, options),
            key=key,
            compute=partial(compute, options=options, clip=embedders[options.of], key=key),
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
        where, dimension = f"measure.clusters.{name}", models[clusters.of]["dimension"]
        read = {side: _read_array(f"{where}.{side}", path) for side, path in _files_of(clusters).items()}
        _check_clusters(where, clusters, read, dimension)
        found[name] = {side: hashlib.sha256(array.tobytes()).hexdigest() for side, array in read.items()}
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
    folder = Folder(path)
    where = f"measure.fooling.shift: {path}"
    if not folder.exists("_SUCCESS"):
        raise RecipeError(f"{where} is not a finished run; accepted: the --out of one with embeddings: true")
    run = folder.read_json("run.json")
    weights = [known["weights"] for known in run["models"].values() if isinstance(known, dict) and "weights" in known]
    if "embeddings" not in run["keys"] or model["weights"] not in weights:
        raise RecipeError(f"{where} keeps no embeddings of {model['model']} with these weights")
    return run["keys"]["embeddings"]


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


def _score_head(given: Embeddings, options: Head, clip: Clip, key: str) -> Sequence[pa.Array]:
    head = once(key, lambda: heads.load_head(options.path, options.activation, options.output))
    rows = given.images if options.input == "image" else given.texts
    return [pa.array(head.apply(_normalised(rows)))]


def _score_fooling(given: Embeddings, options: Fooling, clip: Clip, key: str) -> Sequence[pa.Array]:
    prompts, shift = once(key, lambda: _fooling(options, clip))
    return [pa.array(embedding_signals.fooling_score(_normalised(given.images), prompts, shift))]


def _fooling(options: Fooling, clip: Clip) -> tuple[F32, F32 | None]:
    """The prompts' embeddings, and the shift, where there is to be one."""
    prompts = load_encoder(clip).encode_texts(options.prompts).embeddings
    return prompts, None if options.shift is None else run_shift(options.shift, clip.prefix)


def run_shift(run: str, prefix: str) -> F32:
    """The mean shift g of all embeddings of a finished run by a model, whose columns begin with `prefix`."""
    folder = Folder(run)
    sums: list[Any] = [0.0, 0.0]
    count = 0
    for path in folder.files("tables/embeddings"):
        table = folder.read_parquet(path, [f"{prefix}image", f"{prefix}text"])
        for side, column in enumerate(table.columns):
            flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
            rows = flat.astype(np.float64).reshape(len(table), column.type.list_size)
            sums[side] = sums[side] + rows.sum(axis=0)
        count += int(rows.any(axis=1).sum())
    images, texts = ((total / count)[None].astype(np.float32) for total in sums)
    return embedding_signals.mean_shift(images, texts)


def _tag_contexts(given: Embeddings, options: Context, clip: Clip, key: str) -> Sequence[pa.Array]:
    prompts = once(key, lambda: _context_prompts(options, clip))
    tag = embedding_signals.tag_contexts_of_classes if options.classes else embedding_signals.tag_contexts
    return _tagged(tag(_normalised(given.images), prompts, options.temperature), list(options.values))


def _context_prompts(options: Context, clip: Clip) -> F32:
    """Of the prompts [z, d], or of classes and prompts [y, z, d]."""
    named = [[p.replace("{}", name) for p in options.values.values()] for name in options.classes or ("",)]
    encoded = load_encoder(clip).encode_texts([text for texts in named for text in texts]).embeddings
    return encoded.reshape(len(named), len(options.values), -1) if options.classes else encoded


def _classify(given: Embeddings, options: Classes, clip: Clip, key: str) -> Sequence[pa.Array]:
    classifier, texts = once(key, lambda: _fit(options, clip))
    return _tagged(classifier.classify(_normalised(given.images), texts, options.alpha), list(options.examples))


def _fit(options: Classes, clip: Clip) -> tuple[gda.Classifier, F32 | None]:
    parts = [encode_exemplars(clip, paths) for paths in options.examples.values()]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    texts = [options.prompts[name] for name in options.examples] if options.prompts else None
    encoded = None if texts is None else load_encoder(clip).encode_texts(texts).embeddings
    return gda.fit_classifier(np.concatenate(parts), labels, len(parts)), encoded


def _score_axis(given: Embeddings, options: Axis, clip: Clip, key: str) -> Sequence[pa.Array]:
    axis = once(key, lambda: _axis(options, clip))
    return [pa.array(embedding_signals.quality_score(_normalised(given.images), axis))]


def _axis(options: Axis, clip: Clip) -> F32:
    return embedding_signals.quality_axis(encode_exemplars(clip, options.good), encode_exemplars(clip, options.bad))


def _cluster(given: Embeddings, options: Clusters, clip: Clip, key: str) -> Sequence[pa.Array]:
    centroids, winners = once(key, lambda: _clusters(options))
    nearest = embedding_signals.nearest_centroid(_normalised(given.images), centroids)
    return [pa.array(nearest), *([] if winners is None else [pa.array(winners[nearest])])]


def _clusters(options: Clusters) -> tuple[F32, npt.NDArray[np.bool_] | None]:
    """The centroids, and which of them win."""
    read = {side: _read_array(f"measure.clusters: {side}", path) for side, path in _files_of(options).items()}
    centroids = read["centroids"].astype(np.float32)
    if "winners" not in read:
        return centroids, None
    chosen = read["winners"]
    if chosen.ndim == 2:
        chosen = embedding_signals.nearest_centroid(_normalised(chosen.astype(np.float32)), centroids)
    wins = np.zeros(len(centroids), bool)
    wins[chosen.astype(np.int64)] = True
    return centroids, wins


def _files_of(options: Clusters) -> dict[str, str]:
    return {"centroids": options.centroids, **({"winners": options.winners} if options.winners else {})}


def _check_clusters(where: str, options: Clusters, read: Mapping[str, Any], dimension: int) -> None:
    """Raises RecipeError where arrays are not what they are taken for."""
    centroids, winners = read["centroids"], read.get("winners")
    if centroids.ndim != 2 or centroids.dtype.kind != "f" or centroids.shape[1] != dimension or not len(centroids):
        raise RecipeError(
            f"{where}.centroids: {options.centroids} is {centroids.dtype} {list(centroids.shape)}; accepted: floating-point "
            f"numbers [k, {dimension}], for {dimension} is the dimension of {options.of!r}"
        )
    if winners is None:
        return
    k = len(centroids)
    numbers = winners.ndim == 1 and winners.dtype.kind in "iu" and ((winners >= 0) & (winners < k)).all()
    if not (numbers or (winners.ndim == 2 and winners.dtype.kind == "f" and winners.shape[1] == dimension)):
        raise RecipeError(
            f"{where}.winners: {options.winners} is {winners.dtype} {list(winners.shape)}; accepted: numbers of centroids, "
            f"0 to {k - 1}, or embeddings [n, {dimension}]"
        )


def _read_array(where: str, path: str) -> npt.NDArray[Any]:
    """An array of a .npy file. Raises RecipeError."""
    try:
        with fsspec.open(path, "rb") as file:
            array: npt.NDArray[Any] = np.load(io.BytesIO(file.read()), allow_pickle=False)
    except FileNotFoundError:
        raise RecipeError(f"{where}: {path}: no such file; accepted: a .npy file") from None
    except (OSError, ValueError, EOFError) as error:
        raise RecipeError(f"{where}: {path} is no .npy file: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(array, np.ndarray):
        raise RecipeError(f"{where}: {path} holds several arrays; accepted: a .npy file with one")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RecipeError(f"{where}: {path} holds NaN or infinity")
    return array


_COMPUTE: dict[type[OfEmbeddings], Callable[..., Sequence[pa.Array]]] = {
    Head: _score_head,
    Fooling: _score_fooling,
    Context: _tag_contexts,
    Classes: _classify,
    Axis: _score_axis,
    Clusters: _cluster,
}


def _tagged(tags: Tags, names: list[str]) -> Sequence[pa.Array]:
    """The best tag's name and its probability."""
    return [pa.array(names, pa.string()).take(pa.array(tags.best)), pa.array(tags.probability)]


def encode_exemplars(clip: Clip, paths: Paths) -> F32:
    """Embeddings of image files, float32 [n, dimension], in the order of their paths. Raises RecipeError."""
    encoder = load_encoder(clip)
    views = []
    for path in _files("exemplars", paths):
        with fsspec.open(path, "rb") as file:
            fact = measure_image(file.read(), ImageOptions(looks=(encoder.view,)))
        if fact.status != schema.OK or fact.views[0] is None:
            raise RecipeError(f"measure: exemplar {path} cannot be read as an image: {fact.error or fact.status}")
        views.append(fact.views[0])
    made: list[F32] = [encoder.encode_images(views[at : at + 32]).cpu().numpy() for at in range(0, len(views), 32)]
    return np.concatenate(made)


def _files(where: str, paths: Paths) -> list[str]:
    try:
        return [file.path for file in list_files((paths,) if isinstance(paths, str) else paths, {})]
    except (RecipeError, OSError) as error:
        raise RecipeError(f"measure.{where}: {error}") from None


def _digests(where: str, paths: Paths) -> list[str]:
    found = []
    for path in _files(where, paths):
        with fsspec.open(path, "rb") as file:
            found.append(hashlib.sha256(file.read()).hexdigest())
    return found


def _normalised(rows: F32) -> F32:
    """Of unit length again, after the rounding to float16."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
