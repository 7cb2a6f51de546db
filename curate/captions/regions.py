"""Locate a caption's phrases in its image: boxes by an open-vocabulary detector, as in CLOC's VESL.

In: a unit's kept rows, with at most `queries` phrases each (see `curate.captions.phrases`). Out: table
`schema.REGIONS`, one row per kept row: boxes in pixels of the image after EXIF rotation, best first, each with its
likeliest phrase and score. A row is empty if nothing was detected, and null with a reason if the image could not be
read or the caption is not English. Regions are cached by a row's digest (image, caption, detector, options), in this
run and in the run to reuse.

A box is kept if its best phrase scores above the threshold, and is clipped to the image. Overlapping boxes are kept,
since these detectors report each object once. Trade-off: the detector says where a phrase would be, not whether the
image shows it.

Source: Chen et al., Contrastive Localized Language-Image Pre-Training (CLOC), 2024: VESL labels, 11.6 per image.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.base import ids, schema
from curate.base.errors import RecipeError
from curate.base.process import ModelPool, process_cache
from curate.base.wording import one_line
from curate.captions.phrases import noun_phrases
from curate.captions.rows import Rows
from curate.captions.settings import CaptionSettings
from curate.models.hugging_face import find_devices, in_halves, load, model_name, open_picture, to_dtype
from curate.pool.reread import UnitRereader
from curate.recipe.captions import Regions
from curate.store.checkpoints import Checkpoints

# Boxes as x0, y0, x1, y1 in pixels; (0, 0) is the upper left corner of the image after EXIF rotation.
DETECTED = pa.schema([schema.REGIONS.field(name) for name in ("regions", "error")])
Find = Callable[..., Iterator[pa.Table]]

NOT_ENGLISH = "language: the caption is not English"


class Box(NamedTuple):
    """An object in an image."""

    corners: tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, within the image, x0 < x1 and y0 < y1
    query: int  # index of the image's likeliest query
    score: float  # its likelihood, above the threshold, up to 1


def sample_phrases(phrases: pa.Array, uids: pa.Array, max_phrases: int, seed: int = 0) -> pa.Array:
    """Return at most `max_phrases` phrases per row, in their order; null stays null.

    A hash chooses them: hash64(uid NUL phrase NUL seed).
    """
    rows = []
    for uid, names in zip(uids.to_pylist(), phrases.to_pylist(), strict=True):
        drawn = sorted(names or (), key=lambda name: ids.hash64(f"{uid}\0{name}\0{seed}"))[:max_phrases]
        rows.append(None if names is None else [name for name in names if name in drawn])
    return pa.array(rows, pa.list_(pa.string()))


def find_regions(
    images: Iterable[bytes | None], phrases: pa.Array, detector: "ZeroShotDetector", threshold: float
) -> Iterator[pa.Table]:
    """Detect each image's phrases; images are read and opened `detector.batch` at a time.

    `images` are encoded files, None if missing. `phrases` (list<string>) has one row per image, null if there is
    nothing to detect. Boxes that score above `threshold`, 0 to 1, are kept. Yields `DETECTED`, one batch at a time:
    `regions` is null if there was nothing to detect or detection failed, and `error` is then the reason (`no_image: …`
    or `engine: …`), else null.
    """

    def detect(part: Sequence[tuple[int, Image.Image, list[str]]]) -> list[list[Box]]:
        return detector.detect([picture for _, picture, _ in part], [queries for *_, queries in part], threshold)

    waiting = zip(images, phrases.to_pylist(), strict=True)
    while rows := list(islice(waiting, detector.batch)):
        regions: list[list[dict[str, Any]] | None] = [None] * len(rows)
        errors: list[str | None] = [None] * len(rows)
        shown = []
        for index, (data, queries) in enumerate(rows):
            if queries is None:
                continue
            try:
                if data is None:
                    raise ValueError("the sample has no image")
                picture = open_picture(data)
            except Exception as error:  # decoders raise errors of many kinds
                errors[index] = f"no_image: {_line(error)}"
                continue
            regions[index] = []
            if queries:
                shown.append((index, picture, queries))
        for (index, _, queries), boxes in zip(shown, in_halves(shown, detect), strict=True):
            if isinstance(boxes, Exception):
                regions[index], errors[index] = None, f"engine: {_line(boxes)}"
            else:
                regions[index] = [{"bbox": b.corners, "phrase": queries[b.query], "score": b.score} for b in boxes]
        yield pa.table({"regions": regions, "error": errors}, schema=DETECTED)


def _line(error: Exception) -> str:
    return one_line(error, 200) or type(error).__name__


class ZeroShotDetector:
    """Zero-shot object detection by transformers, shared by threads. Loads the model on first use."""

    def __init__(self, options: Regions) -> None:
        self._options = options
        where = f"captions.regions: {options.model}"
        self._loaded = ModelPool(partial(_load, options, where), partial(find_devices, where, options.device))
        self.batch = options.batch  # images at a time

    @cached_property
    def model(self) -> str:
        """The model's name in tables, with its precision and, for a folder, a digest: equal names give equal boxes."""
        return f"{model_name(self._options.model)} {self._options.precision}"

    def check(self) -> None:
        """Load the model. Raises RecipeError if torch, the device, or the model is missing or not supported."""
        with self._loaded.use():
            pass

    def detect(
        self, pictures: Sequence[Image.Image], queries: Sequence[Sequence[str]], threshold: float
    ) -> list[list[Box]]:
        """Return each picture's boxes, best first; ties keep the detector's order. Each picture needs a query.

        Raises whatever the model raises.
        """
        import torch

        with self._loaded.use() as loaded, torch.inference_mode():
            boxes, scores = (part.float().cpu() for part in loaded.look(pictures, queries))
        kept = []
        for picture, phrases, at, of_boxes in zip(pictures, queries, boxes, scores, strict=True):
            best, best_queries = of_boxes[:, : len(phrases)].max(dim=-1)
            half, size = at[:, 2:] / 2, torch.tensor(picture.size)
            # OWLv2 pads images to a square, at the right and the bottom.
            seen = size.max().repeat(4) if loaded.family == "owlv2" else size.repeat(2)
            corners = torch.cat([at[:, :2] - half, at[:, :2] + half], dim=-1) * seen
            corners = torch.minimum(corners.clamp(min=0), size.to(corners.dtype).repeat(2))
            inside = (corners[:, :2] < corners[:, 2:]).all(dim=-1) & (best > threshold)
            order = [i for i in best.argsort(descending=True, stable=True).tolist() if inside[i]]
            kept.append([Box(tuple(corners[i].tolist()), int(best_queries[i]), float(best[i])) for i in order])
        return kept


class _Loaded(NamedTuple):
    """A model and its processor, with one interface for all families."""

    family: str
    model: Any
    processor: Any
    device: str
    dtype: Any

    def look(self, pictures: Sequence[Image.Image], queries: Sequence[Sequence[str]]) -> tuple[Any, Any]:
        """Return boxes [pictures, boxes, 4] (center, width, height) and scores [pictures, boxes, queries], 0 to 1."""
        texts = [list(phrases) for phrases in queries]  # the processor pads them with blank ones
        config = self.model.config  # maximum tokens of a query, or of all queries together
        if self.family == "grounding-dino":  # its queries are one text, separated by periods
            texts = [[query.replace(".", " ") for query in phrases] for phrases in texts]
            limits = {"padding": True, "max_length": config.max_text_len}
        else:
            limits = {"padding": "max_length", "max_length": config.text_config.max_position_embeddings}
        files = {"images": list(pictures), "text": texts}
        inputs = self.processor(**files, return_tensors="pt", truncation=True, **limits).to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)
        outputs = self.model(**inputs)
        scores = outputs.logits.float().sigmoid()
        if self.family == "grounding-dino":
            scores = self._by_phrase(scores, inputs["input_ids"], max(map(len, queries)))
        return outputs.pred_boxes, scores

    def _by_phrase(self, scores: Any, tokens: Any, max_phrases: int) -> Any:
        import torch

        names = self.processor.tokenizer
        stops = tokens == names.convert_tokens_to_ids(".")
        words = ~(stops | torch.isin(tokens, torch.tensor(names.all_special_ids, device=tokens.device)))
        phrase = stops.cumsum(dim=-1)  # for each token, the number of periods before it
        of_phrases = scores.new_zeros((*scores.shape[:2], max_phrases))
        for i in range(max_phrases):
            is_its_word = (words & (phrase == i))[:, None, :]
            of_phrases[..., i] = scores[..., : tokens.shape[1]].where(is_its_word, 0).amax(dim=-1)
        return of_phrases


_FAMILIES = ("owlvit", "owlv2", "grounding-dino")


def _load(options: Regions, where: str, device: str) -> _Loaded:
    import transformers

    family = load(where, lambda: transformers.AutoConfig.from_pretrained(options.model)).model_type
    if family not in _FAMILIES:
        raise RecipeError(f"{where}: its model type {family!r} is not supported; accepted: {', '.join(_FAMILIES)}")
    dtype = to_dtype(options.precision)
    kind = transformers.AutoModelForZeroShotObjectDetection
    model = load(where, lambda: kind.from_pretrained(options.model, dtype=dtype))
    processor = load(where, lambda: transformers.AutoProcessor.from_pretrained(options.model))
    return _Loaded(family, model.to(device).eval(), processor, device, dtype)


def open_detector(options: Regions, engine_id: str) -> ZeroShotDetector:
    """Return the detector, opened once per process. For `engine_id`, see `open_engine`."""
    key = ids.digest([options.model_dump(mode="json"), engine_id])
    return process_cache(f"detector {key}", lambda: ZeroShotDetector(options))


def write_regions(
    settings: CaptionSettings, images: UnitRereader, rows: Rows, key: str, find: Find, on_progress: Callable[[], None]
) -> None:
    """Write the unit's `regions`, with `key` in the footer if no row failed. `find` works like `find_regions`.

    `on_progress` is called before each checkpoint.
    """
    options, model, tables = settings.captions.regions, settings.engine_ids["regions"], images.tables
    assert options is not None
    detection = [model, options.threshold, options.queries, settings.seed]
    determining = (rows.table[name].to_pylist() for name in ("uid", "sha256", "caption"))
    digests = [ids.digest([*row, *detection]) for row in zip(*determining, strict=True)]
    languages = rows.table["language"].to_pylist()
    english = [digest if code in ("en", None) else None for code, digest in zip(languages, digests, strict=True)]
    # Regions and error by digest; from earlier runs, except rows that failed or were not English
    results: dict[str | None, Any] = {None: {"regions": None, "error": NOT_ENGLISH}}
    for other in reversed(list(tables.locations)):
        if other.exists("regions"):
            earlier = other.read("regions", ["digest", "regions", "error"]).to_pylist()
            results |= {row["digest"]: row for row in earlier if not row["error"]}
    checkpoints = Checkpoints(tables.store, "regions", tables.unit, key)
    missing = np.flatnonzero([digest not in results for digest in english])
    if len(missing):
        phrases = noun_phrases(rows.column("caption").take(missing))
        phrases = sample_phrases(phrases, rows.column("uid").take(missing), options.queries, settings.seed)
        detector = open_detector(options, model)

        def steps(first: int) -> Iterator[pa.Table]:
            files = images.images(rows.rows[missing[first:]])
            return find(files, phrases[first:], detector, options.threshold)

        missing_digests = [digests[index] for index in missing]
        detected = checkpoints.complete(missing_digests, DETECTED, steps, on_progress)
        results |= zip(missing_digests, detected.to_pylist(), strict=True)
    columns: dict[str, Any] = {name: [results[digest][name] for digest in english] for name in ("regions", "error")}
    columns |= {"uid": rows.table["uid"], "digest": digests, "model": [model] * len(digests)}
    written = pa.table(columns, schema=schema.REGIONS)
    note = {"content": ids.table_digest(written.select(["uid", "digest", "error"]))}
    tables.write("regions", written, key, note, is_final=not any(map(is_failure, columns["error"])))
    checkpoints.delete()


def is_failure(error: str | None) -> bool:
    """Return whether a row's `error` means that detection failed; a caption that is not English is not a failure."""
    return error is not None and error != NOT_ENGLISH
