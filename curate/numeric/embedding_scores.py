"""What cached embeddings tell of an image: whether it fools the model, its context, its place on an axis of quality.

In: embeddings float32[n, d] of one model, rows of norm 1 (cosines are plain products here, so embeddings kept as float16
are normalised again first), and few embeddings of prompts or exemplars. Out: float32[n], or `Tags`. Each is one matrix
product, and the numbers of a row do not depend on other rows but through the BLAS's rounding (some 1e-7 of a cosine).

Trade-offs: nothing is learnt or tuned; what a score means is calibrated on real images, as a rule does with `top`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from curate.errors import RecipeError
from curate.numeric.arrays import F32, F64, I32
from curate.numeric.products import dot, squares
from curate.numeric.vectors import normalised

GAP_SHARE = 0.25
"""Of the distance between the modalities' means: CLIPMasterPrints' shift."""

TEMPERATURE = 0.01
"""Of a cosine: CLIP's logit scale of 100, at PerceptionCLIP's temperature of 1."""

CELLS = 1 << 22
"""Similarities at a time, so that memory does not grow with the rows."""


class Tags(NamedTuple):
    """One of k values for each row."""

    probabilities: F32  # float32[n, k]; each row sums to 1
    best: npt.NDArray[np.int64]  # int64[n], the most probable value; of equal ones the first

    @property
    def probability(self) -> F32:
        """Of the best value: float32[n]."""
        probability: F32 = self.probabilities[np.arange(len(self.best)), self.best]
        return probability


def mean_shift(images: F32, texts: F32) -> F32:
    """Return the shift g that draws images and texts together: a quarter of (mean image − mean text).

    Source: Freiberger et al., Fooling Contrastive Language-Image Pre-trained Models with CLIPMasterPrints, 2023,
    mitigation by shifting; the gap is Liang et al.'s, Mind the Gap, 2022.

    Args:
        images: float32[n, d], of real images; a mean that was computed before represents them, as one row.
        texts: float32[m, d], of texts, likewise.

    Returns:
        float32[d]; not normalised. The means are summed in float64.

    Raises:
        ValueError: there are no images, or no texts.
    """
    if len(images) == 0 or len(texts) == 0:
        raise ValueError(f"found {len(images)} images and {len(texts)} texts; accepted: at least one of each")
    return (GAP_SHARE * (_mean(images) - _mean(texts))).astype(np.float32)


def shift(images: F32, texts: F32, g: F32) -> tuple[F32, F32]:
    """Return images less g, and texts plus g, each row normalised again (a row that vanishes stays 0).

    Args:
        images: float32[n, d].
        texts: float32[m, d].
        g: float32[d], of `mean_shift`.

    Returns:
        float32[n, d] and float32[m, d].
    """
    return normalised(images - g), normalised(texts + g)


def fooling_score(images: F32, prompts: F32, g: F32 | None = None) -> F32:
    """Return how well an image fits the worst of K prompts that have nothing to do with each other: the smallest cosine.

    A fooling image scores high with all of them, which no real image does; what is high depends on the model, so that
    the score is read against that of real images.

    Source: Freiberger et al., 2023 (see `mean_shift`): fooling images maximise the minimum over prompts; K = 25 to 100.

    Args:
        images: float32[n, d].
        prompts: float32[K, d], of unrelated prompts.
        g: float32[d], a shift to apply first; None for none.

    Returns:
        float32[n], -1 to 1.

    Raises:
        ValueError: there are no prompts.
    """
    if len(prompts) == 0:
        raise ValueError("a fooling score needs prompts; found none; accepted: 25 to 100 unrelated ones")
    if g is not None:
        images, prompts = shift(images, prompts, g)
    lowest: F32 = (images @ prompts.T).min(axis=1)
    return lowest


def quality_axis(good: F32, bad: F32) -> F32:
    """Return the direction from bad exemplars to good ones: mean good − mean bad.

    Source: Gaintseva et al., RAVE: Residual Vector Embedding for CLIP-Guided Backlit Image Enhancement, 2024.

    Args:
        good: float32[n, d], images as one wants them.
        bad: float32[m, d], images as one does not want them; best alike in all else.

    Returns:
        float32[d]; not normalised. The means are summed in float64.

    Raises:
        RecipeError: one has no rows, or their means are the same, so that there is no direction.
    """
    if len(good) == 0 or len(bad) == 0:
        raise RecipeError(f"found {len(good)} good exemplars and {len(bad)} bad ones; accepted: at least one of each")
    axis = (_mean(good) - _mean(bad)).astype(np.float32)
    if not axis.any():
        raise RecipeError("good and bad exemplars have the same mean; accepted: exemplars that differ")
    return axis


def quality_score(images: F32, axis: F32) -> F32:
    """Return where an image lies between the exemplars: cos(image, axis).

    Source: as `quality_axis`.

    Args:
        images: float32[n, d].
        axis: float32[d], of `quality_axis`.

    Returns:
        float32[n], -1 to 1; higher is nearer the good ones.
    """
    cosines: F32 = images @ normalised(axis[None])[0]
    return cosines


def tag_contexts(images: F32, prompts: F32, temperature: float = TEMPERATURE) -> Tags:
    """Return the context of each image, without classes: p(z|x) = softmax over z of cos(x, z) / T.

    Source: An et al., PerceptionCLIP: Visual Classification by Inferring and Conditioning on Contexts, 2024, its
    estimate of p(z|x) from the attribute alone (PureAttr).

    Args:
        images: float32[n, d].
        prompts: float32[z, d], one for each value of a factor ("a photo of an object, in water"), or of several at once.
        temperature: T, of the cosine: the paper's, over the model's logit scale; larger is flatter.

    Returns:
        Probabilities float32[n, z], and the best value.

    Raises:
        ValueError: there are no prompts, or T is not above 0.
    """
    return tag_contexts_of_classes(images, prompts[None], temperature)


def tag_contexts_of_classes(images: F32, prompts: F32, temperature: float = TEMPERATURE) -> Tags:
    """Return the context of each image, whatever its class: p(z|x) ∝ Σ over classes y of exp(cos(x, (y, z)) / T).

    Source: An et al., 2024 (see `tag_contexts`), its estimate of p(z|x) with classes (ClassAttr).

    Args:
        images: float32[n, d].
        prompts: float32[y, z, d], of each class in each context ("a photo of a dog, in water").
        temperature: T, of the cosine: the paper's, over the model's logit scale; larger is flatter.

    Returns:
        Probabilities float32[n, z], and the best value.

    Raises:
        ValueError: there are no classes or contexts, or T is not above 0.
    """
    classes, contexts, _ = prompts.shape
    if not classes or not contexts:
        raise ValueError(f"found prompts of {classes} classes in {contexts} contexts; accepted: at least 1 of each")
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; accepted: above 0")
    flat = prompts.reshape(classes * contexts, -1).T
    probabilities = np.empty((len(images), contexts), np.float32)
    step = max(1, CELLS // (classes * contexts))
    for start in range(0, len(images), step):
        logits = (images[start : start + step] @ flat).astype(np.float64).reshape(-1, classes, contexts)
        logits /= temperature
        weights = np.exp(logits - logits.max(axis=(1, 2), keepdims=True)).sum(axis=1)
        probabilities[start : start + step] = weights / weights.sum(axis=1, keepdims=True)
    return Tags(probabilities, probabilities.argmax(axis=1))


def nearest_centroid(images: F32, centroids: F32) -> I32:
    """Return the cluster of each image: the centroid with the largest product with it; of equal ones the first.

    Products are float32 first; what is within their error of the largest is compared in float64, summed in the order of
    dimensions, so that the result does not depend on which rows are computed together.

    Source: Gadre et al., DataComp, 2023, its image-based filtering (appendix), with centroids of length 1.

    Args:
        images: float32[n, d].
        centroids: float32[k, d].

    Returns:
        int32[n], 0 to k - 1.

    Raises:
        ValueError: there are no centroids.
    """
    if len(centroids) == 0:
        raise ValueError("found no centroids; accepted: at least 1")
    nearest = np.empty(len(images), np.int32)
    images, centroids = np.ascontiguousarray(images, np.float32), np.ascontiguousarray(centroids, np.float32)
    longest = float(np.sqrt(squares(centroids).max()))
    step = max(1, CELLS // len(centroids))
    for start in range(0, len(images), step):
        rows = images[start : start + step]
        _best(rows @ centroids.T, rows, centroids, longest, nearest[start : start + step])
    return nearest


@njit(nogil=True, cache=True)
def _best(products: F32, images: F32, centroids: F32, longest: float, out: I32) -> None:
    """Return the best centroid of each row: of those whose product may be the largest, by the exact product."""
    for i in range(len(images)):
        # Twice the error bound of a float32 product (Higham, section 3.1).
        margin = 2 * (images.shape[1] + 8) * 2.0**-24 * np.sqrt(dot(images[i], images[i])) * longest
        least = products[i].max() - margin
        best, chosen = -np.inf, 0
        for j in range(len(centroids)):
            if products[i, j] >= least:
                product = dot(images[i], centroids[j])
                if product > best:
                    best, chosen = product, j
        out[i] = chosen


def _mean(rows: F32) -> F64:
    mean: F64 = rows.mean(axis=0, dtype=np.float64)
    return mean
