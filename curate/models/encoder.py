"""Loads an open_clip model and encodes images and texts with it, as open_clip's own loop would, but faster.

In: PIL images and strings. Out: L2-normalised embeddings, float32 [n, dimension]. What makes it fast leaves the result
as it is: images stay uint8 until they are on the device; texts are sorted by length and cut to the longest of their
batch, which a causal text tower that pools at the end token cannot notice. A model is loaded once per process and GPU.

What scores depend on is in a model's identity (`curate.models.identity`); batches and devices change them by rounding only.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from curate import ids
from curate.errors import RecipeError, RunError
from curate.models.hugging_face import each_device, free_memory, is_memory, to_dtype
from curate.models.identity import OpenClip, check_weights, identify, resolve_device, resolve_precision
from curate.models.misalignment import WordScores, word_scores
from curate.models.positions import TextTower, project, stretch, text_tower
from curate.numeric.arrays import F32
from curate.process import Lazy, process_cache
from curate.wording import one_line

_BATCH = {"cpu": 32, "mps": 64, "cuda": 256}
_TOKENS_AT_ONCE = 1024  # texts that are turned into tokens at a time


class Texts(NamedTuple):
    """Encoded texts: embeddings float32 [n, dimension], tokens int32 [n] before truncation, truncated bool [n]."""

    embeddings: F32
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]


def load_encoder(options: OpenClip, identity: Mapping[str, Any] | None = None) -> "Encoder":
    """Return the model, loaded once per process, and shared by threads; `identity` is from `identify`.

    Of several GPUs each gets the model once there is work for it, unless the recipe names one (`cuda:0`).

    Raises RecipeError or RunError where it cannot be loaded, or its weights are not those that were identified.
    """
    device = resolve_device(options)
    precision = resolve_precision(options, device)
    known, identity = identity, identify(options) if identity is None else identity
    content = {name: value for name, value in identity.items() if name not in ("device", "precision")}
    key = ids.digest(["encoder", content, device, precision, options.batch])

    def load() -> Encoder:
        if known is not None:
            check_weights(options, known)
        return _open(options, device, precision)

    return process_cache(key, load)


class _Net(NamedTuple):
    """What is loaded, on one device."""

    net: Any
    tower: TextTower | None  # where sequences may be cut
    device: str
    dtype: Any
    dimension: int
    tokenizer: Any
    view: Callable[[Image.Image], npt.NDArray[Any]]
    normalize: tuple[Any, Any] | None  # mean and std, where views are uint8

    def encode_images(self, views: list[npt.NDArray[Any]]) -> Any:
        """See `Encoder`."""
        import torch

        # Pinned memory lets the copy to a GPU go on during its work; the allocator keeps it until the copy is done.
        pinned = self.device.startswith("cuda")
        kind = torch.float32 if self.normalize is None else torch.uint8
        staged = torch.empty((len(views), *views[0].shape), dtype=kind, pin_memory=pinned)
        np.stack(views, out=staged.numpy())
        pixels = staged.to(self.device, non_blocking=pinned)
        if self.normalize is not None:
            mean, std = self.normalize
            # ToTensor and Normalize, operation by operation: the same floats.
            pixels = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
            pixels = pixels.div_(255).sub_(mean).div_(std)
        return _unit(self.net.encode_image(pixels.to(self.dtype)))

    def encode_ids(self, ids: Any) -> Any:
        """Return the embeddings of texts, which are token ids [n, length]."""
        ids = ids.to(self.device)
        return _unit(self.net.encode_text(ids) if self.tower is None else encode_cut(self.tower, ids))


@dataclass
class Encoder:
    """A model, loaded on a device, and on further ones of its kind while it is in use there."""

    dimension: int  # of the embeddings
    # From a PIL image, of any mode, to what `encode_images` takes: uint8 [height, width, 3], or float32
    # [3, height, width] where the model's own transform has steps that pixels cannot wait for.
    view: Callable[[Image.Image], npt.NDArray[Any]]
    batch: int  # images or texts a forward pass; halved where memory runs out
    _tokenizer: Any
    _nets: Lazy[_Net]
    _is_cut: bool  # sequences may be cut

    def encode_images(self, views: Sequence[npt.NDArray[Any]]) -> Any:
        """Return embeddings of views, a tensor [n, dimension] on a free device; on a GPU it may not be there yet."""
        import torch

        with self._nets.use() as net, torch.inference_mode():
            return torch.cat(self._in_halves(net.encode_images, list(views)))

    def encode_texts(self, texts: Sequence[str]) -> Texts:
        """Return embeddings of texts, in order; see `Texts`."""
        import torch

        embeddings = np.zeros((len(texts), self.dimension), np.float32)
        tokens = np.zeros(len(texts), np.int32)
        truncated = np.zeros(len(texts), bool)
        for first in range(0, len(texts), _TOKENS_AT_ONCE):
            part = slice(first, first + _TOKENS_AT_ONCE)
            ids, lengths, tokens[part] = self._tokenize(list(texts[part]))
            truncated[part] = tokens[part] > ids.shape[1]
            order = waiting = np.argsort(-lengths, kind="stable")
            encoded = []
            while len(waiting):
                rows, waiting = waiting[: self.batch], waiting[self.batch :]
                with self._nets.use() as net, torch.inference_mode():
                    encoded += self._in_halves(net.encode_ids, ids[torch.from_numpy(rows), : int(lengths[rows[0]])])
            embeddings[first + order] = np.concatenate([part.cpu().numpy() for part in encoded])
        return Texts(embeddings, tokens, truncated)

    def score_words(self, images: F32, captions: Sequence[str]) -> list[WordScores]:
        """Return how well each word of each caption fits its image, by the images' embeddings [n, dimension]."""
        import torch

        def score(net: _Net, rows: list[int]) -> list[WordScores]:
            given = torch.from_numpy(images[rows]), [captions[row] for row in rows]
            return word_scores(net.net, self._tokenizer, *given, self.batch)

        with self._nets.use() as net:
            parts = self._in_halves(partial(score, net), list(range(len(captions))))
        return [scores for part in parts for scores in part]

    def _in_halves(self, encode: Callable[[Any], Any], items: Any) -> list[Any]:
        """Return what is made of the items: at once, or in halves and with half the batch from now on where memory runs out."""
        try:
            return [encode(items)]
        except RuntimeError as error:
            if not is_memory(error) or len(items) < 2:
                raise
        free_memory()
        half = len(items) // 2
        self.batch = max(1, min(self.batch, half))
        return [*self._in_halves(encode, items[:half]), *self._in_halves(encode, items[half:])]

    def _tokenize(self, texts: list[str]) -> tuple[Any, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return token ids [n, context]; how many of them count, all where sequences may not be cut; tokens untruncated."""
        import torch

        if hasattr(self._tokenizer, "sot_token_id") and getattr(self._tokenizer, "reduction_fn", None) is None:
            context = self._tokenizer.context_length
            begin, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
            lists = [[begin, *self._tokenizer.encode(text), end] for text in texts]
            ids = torch.zeros(len(lists), context, dtype=torch.long)
            for row, found in zip(ids, lists, strict=True):
                cut = found if len(found) <= context else [*found[: context - 1], end]
                row[: len(cut)] = torch.tensor(cut)
            tokens = np.array([len(found) for found in lists], np.int64)
        else:
            ids = self._tokenizer(texts)
            context = ids.shape[1]
            tokens = _unpadded(self._tokenizer(texts, context_length=8 * context))
        lengths = np.minimum(tokens, context) if self._is_cut else np.full(len(texts), context)
        return ids, lengths.astype(np.int64), tokens


def encode_cut(tower: TextTower, ids: Any) -> Any:
    """Return what open_clip's text tower gives for sequences shorter than its context: positions and mask are cut with them.

    Exact for a causal mask and pooling at the end token: what follows it is never read.
    """
    import torch

    holder, length = tower.holder, ids.shape[1]
    x = holder.ln_final(holder.transformer(tower.embed(ids), attn_mask=holder.attn_mask[:length, :length]))
    return project(holder.text_projection, x[torch.arange(len(x), device=x.device), tower.ends(ids)])


def _unit(features: Any) -> Any:
    from torch.nn import functional

    return functional.normalize(features.float(), dim=-1)


def _unpadded(ids: Any) -> npt.NDArray[np.int64]:
    """Return how many tokens come before the padding, which is what the last column holds."""
    kept = ids.numpy() != ids.numpy()[:, -1:]
    return np.asarray((kept.shape[1] - np.argmax(kept[:, ::-1], axis=1)) * kept.any(axis=1), np.int64)


def _open(options: OpenClip, device: str, precision: str) -> Encoder:
    nets = Lazy(partial(_load, options, precision), partial(each_device, device))
    batch = _BATCH[device.partition(":")[0]] if options.batch == "auto" else options.batch
    with nets.use() as net:
        return Encoder(net.dimension, net.view, batch, net.tokenizer, nets, net.tower is not None)


def _load(options: OpenClip, precision: str, device: str) -> _Net:
    import open_clip
    import torch

    _keep_memory()
    try:
        net, _, transform = open_clip.create_model_and_transforms(
            options.model, pretrained=options.pretrained, precision=precision, device=device
        )
        tokenizer = open_clip.get_tokenizer(options.model)
        if options.context_length:
            tokenizer = stretch(net, tokenizer, options.context_length)
    except RecipeError:
        raise
    except Exception as error:  # of many kinds
        raise RunError(
            f"measure.clip {options.name!r}: {options.model} cannot be loaded: {one_line(error, 400)}"
        ) from None
    net.eval().requires_grad_(False)
    view, normalize = _split(transform, device)
    tower = None
    with suppress(RecipeError):  # `encode_cut` does not hold for it
        tower = text_tower(net)
    with torch.inference_mode():  # a word is encoded: so a model that cannot run fails when it is loaded
        dimension = int(net.encode_text(tokenizer(["a"]).to(device)).shape[-1])
    return _Net(net, tower, device, to_dtype(precision), dimension, tokenizer, view, normalize)


def _split(transform: Any, device: str) -> tuple[Callable[[Image.Image], npt.NDArray[Any]], tuple[Any, Any] | None]:
    """Return the model's transform up to uint8 pixels, and the mean and std that follow; the whole where it ends otherwise."""
    import torch

    steps = list(getattr(transform, "transforms", []))
    if len(steps) < 2 or type(steps[-1]).__name__ != "Normalize" or "ToTensor" not in type(steps[-2]).__name__:
        return lambda image: transform(image).numpy(), None

    def view(image: Image.Image) -> npt.NDArray[Any]:
        for step in steps[:-2]:
            image = step(image)
        return np.asarray(image)

    mean, std = (torch.tensor(getattr(steps[-1], name)).view(1, 3, 1, 1).to(device) for name in ("mean", "std"))
    return view, (mean, std)


def _keep_memory() -> None:
    """Keep freed memory for the next forward pass (glibc): a third of the page faults, up to a tenth of a CPU's time."""
    import ctypes

    trim, top_pad, mmap = -1, -2, -3  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # no glibc
        return
    for option, value in ((mmap, 32 << 20), (trim, 1 << 30), (top_pad, 64 << 20)):
        mallopt(option, value)
