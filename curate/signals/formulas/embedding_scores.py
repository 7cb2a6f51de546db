"""Scores and tags from cached embeddings: fooling images, quality axes, contexts, clusters, classifiers, targets.

In: embeddings float32[n, d] by one model, with rows of norm 1 (embeddings kept as float16 are normalized again first),
and a few embeddings of prompts or exemplars. Out: float32[n], or `Tags`. Other rows change a row's values only by the
BLAS library's rounding (about 1e-7 of a cosine).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32, F64, I32, I64
from curate.base.numeric.spherical import padded
from curate.base.numeric.vectors import dot, normalized, squares
from curate.models.products import SOME, Products

GAP_SHARE = 0.25  # of the distance between the means of images and texts: the shift in CLIPMasterPrints
CELLS = 1 << 22  # similarities per step, so that memory does not grow with the rows
ROWS = 8192  # rows per step in float64
_ROUNDING = 1e-12  # smaller variances of rows of norm 1 are float32's rounding


class Tags(NamedTuple):
    """One of k values for each row."""

    probabilities: F32  # [n, k]; each row sums to 1
    best: I64  # the most probable value; on a tie, the first

    @property
    def probability(self) -> F32:
        return np.asarray(self.probabilities[np.arange(len(self.best)), self.best])


def mean_shift(images: F32, texts: F32) -> F32:
    """Return the shift g that moves images and texts toward each other: a quarter of (mean image − mean text).

    Source: Freiberger et al., Fooling Contrastive Language-Image Pre-trained Models with CLIPMasterPrints, 2023,
    mitigation by shifting.
    """
    gap = images.mean(axis=0, dtype=np.float64) - texts.mean(axis=0, dtype=np.float64)
    return np.asarray(GAP_SHARE * gap, np.float32)


def fooling_score(images: F32, prompts: F32, g: F32 | None = None) -> F32:
    """Return how well an image fits the worst of K unrelated prompts: the smallest cosine.

    If `g` is given, it is first subtracted from images and added to prompts. Source: see `mean_shift`; fooling images
    maximize the minimum over the prompts; K = 25 to 100.
    """
    if g is not None:
        images, prompts = normalized(images - g), normalized(prompts + g)
    return np.asarray((images @ prompts.T).min(axis=1))


def quality_axis(good: F32, bad: F32) -> F32:
    """Return the direction from bad exemplars to good ones: mean good − mean bad.

    Ideally, they differ only in quality. Source: Gaintseva et al., RAVE: Residual Vector Embedding for CLIP-Guided
    Backlit Image Enhancement, 2024. Raises RecipeError if both have the same mean, so that there is no direction.
    """
    axis = np.asarray(good.mean(axis=0, dtype=np.float64) - bad.mean(axis=0, dtype=np.float64), np.float32)
    if not axis.any():
        raise RecipeError("good and bad exemplars have the same mean; accepted: exemplars that differ")
    return axis


def quality_score(images: F32, axis: F32) -> F32:
    """Return the cosine of each image and a `quality_axis`: higher if the image is closer to the good exemplars."""
    return np.asarray(images @ normalized(axis[None])[0])


def tag_contexts(images: F32, prompts: F32, temperature: float = 0.01) -> Tags:
    """Return the context of each image, whatever its class: p(z|x) ∝ Σ over classes y of exp(cos(x, (y, z)) / T).

    `images` are float32[n, d]; `prompts` describe each class in each context ("a photo of a dog, in water"),
    float32[y, z, d]. Source: An et al., PerceptionCLIP: Visual Classification by Inferring and Conditioning on
    Contexts, 2024: p(z|x) with classes (ClassAttr), or with a single class (PureAttr).
    """
    classes, contexts, dimension = prompts.shape
    flat = prompts.reshape(-1, dimension).T

    def logits(part: F32) -> F64:
        return (part @ flat).astype(np.float64).reshape(-1, classes, contexts) / temperature

    return _softmax(images, contexts, max(1, CELLS // (classes * contexts)), logits)


def _softmax(images: F32, values: int, step: int, logits: Callable[[F32], F64]) -> Tags:
    """Return each image's tag from its logits, float64[n, classes, values], computed for `step` images at a time."""
    probabilities = np.empty((len(images), values), np.float32)
    for start in range(0, len(images), step):
        part = logits(images[start : start + step])
        weights = np.exp(part - part.max(axis=(1, 2), keepdims=True)).sum(axis=1)
        probabilities[start : start + step] = weights / weights.sum(axis=1, keepdims=True)
    return Tags(probabilities, probabilities.argmax(axis=1))


def nearest_centroid(images: F32, centroids: F32) -> I32:
    """Return each image's cluster: the centroid with the largest dot product; on a tie, the first.

    It first computes products in float32. Those within rounding error of the largest are compared in float64, summed in
    the order of dimensions, so that the result does not depend on which rows are computed together. Source: Gadre et
    al., DataComp, 2023, image-based filtering (appendix), with centroids of length 1.
    """
    nearest, best = np.zeros(len(images), np.int32), np.full((len(images), 2), -np.inf)
    images, centroids = np.ascontiguousarray(images, np.float32), np.ascontiguousarray(centroids, np.float32)
    # Twice the error bound of a float32 product (Higham, section 3.1).
    margins = 2 * (images.shape[1] + 8) * 2.0**-24 * np.sqrt(squares(images)) * np.sqrt(squares(centroids).max())
    side = max(1, min(isqrt(CELLS), len(centroids)))  # split many centroids; otherwise a step would have few rows
    for start, first in product(range(0, len(images), CELLS // side), range(0, len(centroids), side)):
        rows, part = slice(start, start + CELLS // side), centroids[first : first + side]
        _find_nearest(images[rows] @ part.T, images[rows], part, first, margins[rows], best[rows], nearest[rows])
    return nearest


@njit(nogil=True, cache=True)
def _find_nearest(
    products: F32, images: F32, centroids: F32, first: int, margins: F64, best: F64, nearest: I32
) -> None:
    """Update each row's nearest centroid with further ones; compute exact products only if they may be the largest.

    `best` has each row's largest product so far, and its largest exact product (float64[n, 2]).
    """
    for i in range(len(images)):
        row, (largest, exact), chosen = products[i], best[i], nearest[i]
        minimum = largest - margins[i]
        for j in range(len(row)):
            if row[j] >= minimum:
                largest = max(largest, row[j])
                minimum, value = largest - margins[i], dot(images[i], centroids[j])
                if value > exact:
                    exact, chosen = value, first + j
        best[i, 0], best[i, 1], nearest[i] = largest, exact, chosen


@dataclass(frozen=True, eq=False)
class Classifier:
    """x ↦ x · weight + bias, one logit per class: Gaussians with a shared covariance (GDA), without training.

        Σ⁻¹ = d · pinv((N - 1) Σ̂ + tr(Σ̂) I)    Σ̂: covariance of the examples around their class means
        W = Σ⁻¹ μᵀ      b = log(1/k) - ½ μ Σ⁻¹ μᵀ      logits = 100 x Tᵀ + α (x W + b)

    All classes have the same prior probability. α, the weight of examples relative to prompts, is chosen on held-out
    examples (the paper tries powers of ten from 1e-4 to 1e4). It computes in float64, because entries of Σ⁻¹ reach
    thousands. Source: Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation, 2024; its Σ⁻¹ is the ridge estimator of Kubokawa and Srivastava, 2008.
    """

    weight: F64  # W, float64[d, k]
    bias: F64  # b, float64[k]

    def logits(self, images: F32, texts: F32 | None = None, alpha: float = 1.0) -> F64:
        """Return 100 x Tᵀ + α (x W + b) for images x and texts T, one prompt per class; without T, the second term."""
        x = images.astype(np.float64)  # logits reach hundreds: float32 would lose their differences
        logits: F64 = alpha * (x @ self.weight + self.bias)
        return logits if texts is None else logits + 100.0 * (x @ texts.T.astype(np.float64))

    def classify(self, images: F32, texts: F32 | None = None, alpha: float = 1.0) -> Tags:
        """Return each image's class and the softmax of its `logits`; without texts and with α = 1, the posteriors."""
        return _softmax(images, len(self.bias), ROWS, lambda part: self.logits(part, texts, alpha)[:, None])


def fit_classifier(embeddings: F32, labels: I64, classes: int) -> Classifier:
    """Fit the Gaussians to labeled examples of each class (4 to 16 work well in the paper).

    Raises RecipeError if the examples do not differ within any class, and so have no covariance.
    """
    x = embeddings.astype(np.float64)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(classes)])
    centered = x - means[labels]
    size, dimension = x.shape
    scatter = centered.T @ centered  # (N - 1) Σ̂: the centered rows have mean 0
    trace = np.trace(scatter) / max(size - 1, 1)
    if trace <= _ROUNDING:
        alike = f"the {size} examples of {classes} classes do not differ within any class"
        raise RecipeError(f"{alike}; accepted: at least one class with two different examples")
    # The ridge is above 0, so the matrix is positive definite, and its pseudo-inverse is its inverse.
    weight = dimension * np.linalg.solve(scatter + trace * np.eye(dimension), means.T)
    return Classifier(weight, -np.log(classes) - 0.5 * np.einsum("kd,dk->k", means, weight))


def largest_cosine(images: npt.NDArray[Any], targets: Products) -> F32:
    """Return each image's largest |cosine| with any target, float32[n]; all have unit length.

    This is NormSim with the norm ∞: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal
    Contrastive Learning" (arXiv 2405.19547).
    """
    out = np.empty(len(images), np.float32)
    for part, block in padded(images, SOME):
        out[part] = targets.largest(normalized(block))[: part.stop - part.start]
    return out


def covariance(targets: npt.NDArray[Any]) -> F64:
    """Return Σ, the mean of t·tᵀ over targets [t, d] of unit length: float64[d, d]."""
    whole = np.zeros((targets.shape[1], targets.shape[1]))
    for start in range(0, len(targets), 1 << 16):
        rows = normalized(targets[start : start + (1 << 16)]).astype(np.float64)
        whole += rows.T @ rows
    return whole / max(1, len(targets))


def alignment(images: npt.NDArray[Any], sigma: F64) -> F32:
    """Return fᵀΣf for each image f of unit length, float32[n]: the "Variance Alignment Score" (arXiv 2402.02055)."""
    out = np.empty(len(images), np.float32)
    for part, block in padded(images, len(sigma)):
        rows = normalized(block).astype(np.float64)
        out[part] = np.einsum("nd,nd->n", rows @ sigma, rows)[: part.stop - part.start]
    return out
