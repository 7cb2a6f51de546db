"""The shared base of signals that use embeddings: builds them, and reads their files and exemplar images."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from curate.base import ids, schema
from curate.base.errors import RecipeError, RunError
from curate.base.numeric.arrays import F32
from curate.base.numeric.vectors import normalized
from curate.base.process import process_cache
from curate.models.encoder import Encoder
from curate.models.tensor_files import array_digest, read_rows
from curate.pool.exemplars import picture_files, read_pictures
from curate.read.image import measure_image
from curate.recipe.measure import Form, OnEmbeddings
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.section import UserPaths
from curate.signals import signal as signals
from curate.signals.formulas.embedding_scores import Tags
from curate.signals.signal import BuildContext, EmbeddingSignal

Loaded = TypeVar("Loaded", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a signal computes its columns from embeddings."""

    columns: tuple[pa.Field, ...] | None = None  # its columns in `scores`; None: all that its section `gives`
    settings: dict[str, Any]  # its section of the recipe, as plain data, without the paths of its files
    load: Callable[[], Any]  # loads what all units share (a head, encoded prompts, or exemplars), once per process
    # Takes embeddings and the loaded object, and returns the columns' values: null if a row lacks the `side`
    compute: Callable[[signals.Embeddings, Any], Sequence[pa.Array]]
    side: Literal["image", "text"] = "image"  # the embeddings that it needs


def embedding_signal(name: str, options: OnEmbeddings, built: BuildContext, method: Method) -> EmbeddingSignal:
    """Return a signal on embeddings."""
    columns = method.columns or schema.named_fields(options.gives, name)
    model_key = built.signals[options.of].key
    key = ids.digest([model_key, type(options).__name__, 1, method.settings, built.identities.get(name)])

    load = partial(process_cache, key, method.load)

    def compute(embeddings: signals.Embeddings) -> Sequence[pa.Array]:
        has_embedding = pa.array(np.asarray(embeddings.side(method.side).any(axis=1)))
        values = method.compute(embeddings, load())
        return [pc.if_else(has_embedding, column, pa.scalar(None, column.type)) for column in values]

    return EmbeddingSignal(name, columns, key, compute=compute, of=options.of, load=load)


class EmbeddingSection(OnEmbeddings):
    """Base of sections that are also the `Method` of their signal."""

    files: ClassVar[tuple[str, ...]] = ()  # the fields that name files; `identify` returns the digests of these

    def identify(self, name: str, context: signals.IdentifyContext) -> Any:
        """Return everything that determines the values besides the recipe; see `SignalKind`."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """The section of the recipe as plain data, without the files and the model."""
        return self.model_dump(exclude={"of", *self.files})

    @abstractmethod
    def load(self, name: str, built: BuildContext) -> Any: ...

    @abstractmethod
    def compute(self, embeddings: signals.Embeddings, loaded: Any) -> Sequence[pa.Array]: ...

    def method(self, name: str, built: BuildContext) -> Method:
        return Method(settings=self.settings, load=partial(self.load, name, built), compute=self.compute)


def embedding_kind(key: str, section: type[EmbeddingSection], form: Form = "named") -> signals.SignalKind:
    """Return the kind of the signals with this section."""

    def build(name: str, options: EmbeddingSection, built: BuildContext) -> list[signals.Signal]:
        return [embedding_signal(name, options, built, options.method(name, built))]

    return signals.SignalKind(key, section, lambda name, options, context: options.identify(name, context), build, form)


def encoder_of(options: OnEmbeddings, built: BuildContext) -> Encoder:
    """Return the model that encodes prompts and exemplars."""
    model = built.signals[options.of]
    assert isinstance(model, signals.ModelSignal), "the recipe was checked"
    return model.encoder(False)


def check_unchanged(name: str, now: Any, identity: Any) -> None:
    """Raise RunError if a signal's files changed since it was identified."""
    if now != identity:
        raise RunError(f"measure: a file of {name!r} changed during the run; run again")


def unchanged(name: str, loaded: Loaded, built: BuildContext) -> Loaded:
    """Return the loaded object, which has a `digest`, after `check_unchanged`."""
    check_unchanged(name, loaded.digest, built.identities[name])
    return loaded


def tag_values(tags: Tags, names: Sequence[str]) -> Sequence[pa.Array]:
    """Return the columns of a signal that assigns one of several tags to each image, with its probability."""
    return [pa.array(names, pa.string()).take(tags.best), pa.array(tags.probability)]


def exemplar_digests(where: str, paths: UserPaths) -> list[str]:
    """Return the sha256 of each exemplar, in order. Raises RecipeError, which begins with `where`."""
    return [hashlib.sha256(data).hexdigest() for _, data in read_pictures(picture_files(where, paths))]


def encode_exemplars(where: str, encoder: Encoder, paths: UserPaths) -> tuple[F32, list[str]]:
    """Return embeddings of images (files, or tars of them), float32 [n, dimension], and their sha256, in order.

    Raises RecipeError, which begins with `where`, if one cannot be read as an image, or there is none.
    """
    views, digests = [], []
    for name, data in read_pictures(picture_files(where, paths)):
        fact = measure_image(data, ImageOptions(), [encoder.view])
        if fact.status != schema.OK or fact.observed[0] is None:
            raise RecipeError(f"{where}: {name} cannot be read as an image: {fact.error or fact.status}")
        views.append(fact.observed[0])
        digests.append(fact.sha256)
    if not views:
        raise RecipeError(f"{where}: no image in {paths}")
    return np.concatenate([encoder.encode_images(views[at : at + 32]) for at in range(0, len(views), 32)]), digests


class WithTargets(EmbeddingSection):
    """Base of signals that compare images with target images."""

    kind: ClassVar[str]  # the key of its kind
    files: ClassVar[tuple[str, ...]] = ("targets",)
    needs_encoder = False  # unless they are images
    targets: UserPaths = Field(examples=["imagenet.npy"])
    """Target images: image files, folders of images, or tars; or .npy or .pt files with their embeddings [n,
    dimension]."""

    @property
    def are_arrays(self) -> bool:
        paths = (self.targets,) if isinstance(self.targets, str) else self.targets
        return all(path.lower().endswith((".npy", ".pt", ".pth")) for path in paths)

    def identify(self, name: str, context: signals.IdentifyContext) -> Any:
        """Return the identity of the targets. Raises RecipeError if they are neither embeddings nor images."""
        model, where = context.identities[self.of], f"measure.{self.kind}.{name}.targets"
        if self.are_arrays:
            return [array_digest(array) for array in self._read_arrays(where, model["dimension"])]
        if "model" not in model:
            accepted = "a .npy or .pt file of embeddings, or a model of measure.clip"
            raise RecipeError(f"{where}: {self.of!r} is precomputed and cannot encode images; accepted: {accepted}")
        return exemplar_digests(where, self.targets)

    def load_targets(self, name: str, built: BuildContext) -> F32:
        """Return the targets' embeddings, of unit length (float32[n, dimension])."""
        where = f"measure.{self.kind}.{name}.targets"
        if self.are_arrays:
            arrays = list(self._read_arrays(where, built.identities[self.of]["dimension"]))
            rows, digests = np.concatenate(arrays), [array_digest(array) for array in arrays]
        else:
            rows, digests = encode_exemplars(where, encoder_of(self, built), self.targets)
        check_unchanged(name, digests, built.identities[name])
        return normalized(rows)

    def _read_arrays(self, where: str, dimension: int) -> Iterator[F32]:
        files = picture_files(where, self.targets)
        return (read_rows(where, file.path, f"n, {dimension}", dimension) for file in files)
