"""Load an open_clip model and encode images and texts with it, like open_clip's own loop, but faster.

Images stay uint8 until they are on the device, and a GPU continues while threads wait for its embeddings.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32, I64
from curate.base.process import ModelPool
from curate.models.encoder import Encoded, Encoder, Side, Tokens, pad
from curate.models.hugging_face import each_device, to_dtype
from curate.models.identity import OpenClip, check_weights, identify, resolve_device
from curate.models.misalignment import WordScores, word_scores
from curate.models.positions import TextTower, project, stretch, text_tower

__all__ = ("check_weights", "identify", "open_encoder", "resolve_device")

_BATCH = {"cpu": 32, "mps": 64, "cuda": 256}


class _Net(NamedTuple):
    net: Any
    tower: TextTower | None  # None if sequences cannot be cut
    device: str
    dtype: Any
    dimension: int
    tokenizer: Any
    view: Callable[[Image.Image], npt.NDArray[Any]]
    normalize: tuple[Any, Any] | None  # mean and std, if views are uint8

    def encode_images(self, views: Sequence[npt.NDArray[Any]]) -> Any:
        import torch

        # Pinned memory lets a GPU copy while it computes; the allocator keeps it until the copy is done.
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
        return self.net.encode_image(pixels.to(self.dtype))

    def encode_ids(self, ids: I64) -> Any:
        import torch

        ids = torch.from_numpy(ids).to(self.device)
        return self.net.encode_text(ids) if self.tower is None else encode_cut(self.tower, ids)


@dataclass
class OpenClipEncoder(Encoder):
    _tokenizer: Any
    _nets: ModelPool[_Net]

    def _start(self, side: Side, items: Any) -> Encoded:
        import torch
        from torch.nn import functional

        encode = _Net.encode_images if side == "images" else _Net.encode_ids
        with self._nets.use() as net, torch.inference_mode():
            embeddings = functional.normalize(torch.cat(self._in_halves(partial(encode, net), items)).float(), dim=-1)
        return lambda: np.asarray(embeddings.cpu().numpy())

    def score_words(self, images: F32, captions: Sequence[str]) -> list[WordScores]:
        import torch

        def score(net: _Net, rows: list[int]) -> list[WordScores]:
            pairs = torch.from_numpy(images[rows]), [captions[row] for row in rows]
            return word_scores(net.net, self._tokenizer, *pairs, self.batch)

        with self._nets.use() as net:
            parts = self._in_halves(partial(score, net), list(range(len(captions))))
        return [scores for part in parts for scores in part]

    def _tokenize(self, texts: list[str]) -> Tokens:
        if hasattr(self._tokenizer, "sot_token_id") and getattr(self._tokenizer, "reduction_fn", None) is None:
            begin, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
            lists = [[begin, *self._tokenizer.encode(text), end] for text in texts]
            return pad(lists, self._tokenizer.context_length)
        ids = self._tokenizer(texts).numpy()
        context = ids.shape[1]
        longer = self._tokenizer(texts, context_length=8 * context).numpy()
        kept = longer != longer[:, -1:]  # not padding, which is in the last column
        counts = np.asarray((kept.shape[1] - np.argmax(kept[:, ::-1], axis=1)) * kept.any(axis=1), np.int64)
        return Tokens(ids, counts)


def encode_cut(tower: TextTower, ids: Any) -> Any:
    """Return the text tower's embeddings for sequences shorter than its context, with positions and mask cut to fit.

    Exact for a causal mask and pooling at the end token, since nothing after it is read.
    """
    import torch

    holder, length = tower.holder, ids.shape[1]
    x = holder.ln_final(holder.transformer(tower.embed(ids), attn_mask=holder.attn_mask[:length, :length]))
    return project(holder.text_projection, x[torch.arange(x.shape[0], device=x.device), tower.ends(ids)])


def open_encoder(options: OpenClip, device: str) -> OpenClipEncoder:
    """Return the model, loaded on a device. Raises RecipeError if its context cannot be stretched."""
    nets = ModelPool(partial(_load, options, options.resolve_precision(device)), partial(each_device, device))
    batch = _BATCH[device.partition(":")[0]] if options.batch == "auto" else options.batch
    with nets.use() as net:
        return OpenClipEncoder(net.dimension, net.view, batch, net.tower is not None, net.tokenizer, nets)


def _load(options: OpenClip, precision: str, device: str) -> _Net:
    import open_clip
    import torch

    kinds = {"precision": precision, "device": device}
    net, _, transform = open_clip.create_model_and_transforms(options.model, options.pretrained, **kinds)
    tokenizer = open_clip.get_tokenizer(options.model)
    if options.context_length:
        tokenizer = stretch(net, tokenizer, options.context_length)
    net.eval().requires_grad_(False)
    view, normalize = _split(transform, device)
    tower = None
    with suppress(RecipeError):  # for other towers, `encode_cut` would be wrong
        tower = text_tower(net)
    with torch.inference_mode():  # encode a word: a model that cannot run should fail when it is loaded
        dimension = int(net.encode_text(tokenizer(["a"]).to(device)).shape[-1])
    return _Net(net, tower, device, to_dtype(precision), dimension, tokenizer, view, normalize)


def _split(transform: Any, device: str) -> tuple[Callable[[Image.Image], npt.NDArray[Any]], tuple[Any, Any] | None]:
    """Split a model's transform: return its steps up to uint8 pixels, and its mean and std.

    If it does not end with a mean and std, return the whole transform and None.
    """
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
