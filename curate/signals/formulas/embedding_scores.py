"""What cached embeddings tell of an image: whether it fools the model, its context, its place on an axis of quality.

In: embeddings float32[n, d] of one model, rows of norm 1 (those kept as float16 are normalised again first), and few
embeddings of prompts or exemplars. Out: float32[n], or `Tags`. A row's numbers depend on no other rows but through the
BLAS's rounding (some 1e-7 of a cosine).
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
from curate.base.numeric.vectors import dot, normalised, squares
from curate.models.products import SOME, Products

GAP_SHARE = 0.25  # of the distance between the modalities' means: CLIPMasterPrints' shift
CELLS = 1 << 22  # similarities at a time, so that memory does not grow with the rows
ROWS = 8192  # at a time, which are turned to float64
_ROUNDING = 1e-12  # a smaller variance of rows of norm 1 is float32's rounding


class Tags(NamedTuple):
    """One of k values for each row."""

    probabilities: F32  # [n, k]; each row sums to 1
    best: I64  # the most probable value; of equal ones the first

    @property
    def probability(self) -> F32:
        return np.asarray(self.probabilities[np.arange(len(self.best)), self.best])


def mean_shift(images: F32, texts: F32) -> F32:
    """Return the shift g that draws images and texts together: a quarter of (mean image − mean text), in float64 first.

    Source: Freiberger et al., Fooling Contrastive Language-Image Pre-trained Models with CLIPMasterPrints, 2023,
    mitigation by shifting.
    """
    gap = images.mean(axis=0, dtype=np.float64) - texts.mean(axis=0, dtype=np.float64)
    return np.asarray(GAP_SHARE * gap, np.float32)


def fooling_score(images: F32, prompts: F32, g: F32 | None = None) -> F32:
    """Return how well an image fits the worst of K prompts that have nothing to do with each other: the least cosine.

    `g` is a shift to apply first: images less g, and prompts plus g. Source: see `mean_shift`; fooling images maximise
    the minimum over prompts; K = 25 to 100.
    """
    if g is not None:
        images, prompts = normalised(images - g), normalised(prompts + g)
    return np.asarray((images @ prompts.T).min(axis=1))


def quality_axis(good: F32, bad: F32) -> F32:
    """Return the direction from bad exemplars to good ones, which are best alike in all else: mean good − mean bad.

    Source: Gaintseva et al., RAVE: Residual Vector Embedding for CLIP-Guided Backlit Image Enhancement, 2024. Raises
    RecipeError where their means are the same, so that there is no direction.
    """
    axis = np.asarray(good.mean(axis=0, dtype=np.float64) - bad.mean(axis=0, dtype=np.float64), np.float32)
    if not axis.any():
        raise RecipeError("good and bad exemplars have the same mean; accepted: exemplars that differ")
    return axis


def quality_score(images: F32, axis: F32) -> F32:
    """Return where an image lies between the exemplars of a `quality_axis`: the cosine, higher nearer the good ones."""
    return np.asarray(images @ normalised(axis[None])[0])


def tag_contexts(images: F32, prompts: F32, temperature: float = 0.01) -> Tags:
    """Return the context of each image, whatever its class: p(z|x) ∝ Σ over classes y of exp(cos(x, (y, z)) / T).

    `images` are float32[n, d]; `prompts`, of each class in each context ("a photo of a dog, in water"), float32[y, z,
    d]. Source: An et al., PerceptionCLIP: Visual Classification by Inferring and Conditioning on Contexts, 2024: p(z|x)
    with classes (ClassAttr), and from the attribute alone (PureAttr), which is with one class.
    """
    classes, contexts, dimension = prompts.shape
    flat = prompts.reshape(-1, dimension).T

    def logits(part: F32) -> F64:
        return (part @ flat).astype(np.float64).reshape(-1, classes, contexts) / temperature

    return _softmax(images, contexts, max(1, CELLS // (classes * contexts)), logits)


def _softmax(images: F32, values: int, step: int, logits: Callable[[F32], F64]) -> Tags:
    """Return the values of images by their logits, float64[n, classes, values], of `step` images at a time."""
    probabilities = np.empty((len(images), values), np.float32)
    for start in range(0, len(images), step):
        part = logits(images[start : start + step])
        weights = np.exp(part - part.max(axis=(1, 2), keepdims=True)).sum(axis=1)
        probabilities[start : start + step] = weights / weights.sum(axis=1, keepdims=True)
    return Tags(probabilities, probabilities.argmax(axis=1))


def nearest_centroid(images: F32, centroids: F32) -> I32:
    """Return the cluster of each image: the centroid with the largest product with it; of equal ones the first.

    Products are float32 first; what is within their error of the largest is compared in float64, summed in the order of
    dimensions, so that the result does not depend on which rows are computed together. Source: Gadre et al., DataComp,
    2023, its image-based filtering (appendix), with centroids of length 1.
    """
    nearest, best = np.zeros(len(images), np.int32), np.full((len(images), 2), -np.inf)
    images, centroids = np.ascontiguousarray(images, np.float32), np.ascontiguousarray(centroids, np.float32)
    # Twice the error bound of a float32 product (Higham, section 3.1).
    margins = 2 * (images.shape[1] + 8) * 2.0**-24 * np.sqrt(squares(images)) * np.sqrt(squares(centroids).max())
    side = max(1, min(isqrt(CELLS), len(centroids)))  # many centroids come in parts, else few rows would be together
    for start, first in product(range(0, len(images), CELLS // side), range(0, len(centroids), side)):
        rows, part = slice(start, start + CELLS // side), centroids[first : first + side]
        _find_nearest(images[rows] @ part.T, images[rows], part, first, margins[rows], best[rows], nearest[rows])
    return nearest


@njit(nogil=True, cache=True)
def _find_nearest(
    products: F32, images: F32, centroids: F32, first: int, margins: F64, best: F64, nearest: I32
) -> None:
    """Find the nearest centroid of each row among some more: by exact products, of those that may be the largest.

    `best` has of each row the largest product so far, and the largest exact one (float64[n, 2]).
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
    """x ↦ x · weight + bias, one logit for each class: Gaussians with one covariance (GDA), without training.

        Σ⁻¹ = d · pinv((N - 1) Σ̂ + tr(Σ̂) I)    Σ̂ of the examples less their class's mean, over N - 1
        W = Σ⁻¹ μᵀ      b = log(1/k) - ½ μ Σ⁻¹ μᵀ      logits = 100 x Tᵀ + α (x W + b)

    All classes are equally probable before the image is seen, and have one shape. α, the weight of examples against
    prompts, is chosen on held-out examples (the paper tries the powers of ten from 1e-4 to 1e4). Computed in float64:
    entries of Σ⁻¹ reach thousands. Source: Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation, 2024; its Σ⁻¹ is the ridge estimator of Kubokawa and Srivastava, 2008.
    """

    weight: F64  # W, float64[d, k]
    bias: F64  # b, float64[k]

    def logits(self, images: F32, texts: F32 | None = None, alpha: float = 1.0) -> F64:
        """Return 100 x Tᵀ + α (x W + b) of images x and texts T, a prompt of each class; without T the second term."""
        x = images.astype(np.float64)  # less would lose what differs between logits of hundreds
        logits: F64 = alpha * (x @ self.weight + self.bias)
        return logits if texts is None else logits + 100.0 * (x @ texts.T.astype(np.float64))

    def classify(self, images: F32, texts: F32 | None = None, alpha: float = 1.0) -> Tags:
        """Return the class of each image, and the softmax of its `logits`: without texts, at α = 1, the posteriors."""
        return _softmax(images, len(self.bias), ROWS, lambda part: self.logits(part, texts, alpha)[:, None])


def fit_classifier(embeddings: F32, labels: I64, classes: int) -> Classifier:
    """Fit the Gaussians to labelled examples, some of each class (4 to 16 do well in the paper).

    Raises RecipeError where the examples of each class are all alike, as with one each, and tell no covariance.
    """
    x = embeddings.astype(np.float64)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(classes)])
    centred = x - means[labels]
    size, dimension = x.shape
    scatter = centred.T @ centred  # (N - 1) Σ̂: the centred rows have mean 0
    trace = np.trace(scatter) / max(size - 1, 1)
    if trace <= _ROUNDING:
        alike = f"the {size} examples of {classes} classes do not differ within any class"
        raise RecipeError(f"{alike}; accepted: two different examples of a class at least")
    # With the ridge above 0 the matrix is positive definite, so that its pseudo-inverse is its inverse.
    weight = dimension * np.linalg.solve(scatter + trace * np.eye(dimension), means.T)
    return Classifier(weight, -np.log(classes) - 0.5 * np.einsum("kd,dk->k", means, weight))


def largest_cosine(images: npt.NDArray[Any], targets: Products) -> F32:
    """Return the largest |cosine| of each image [n, d] with any target, of unit length (float32[n]).

    This is NormSim in the norm ∞: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal
    Contrastive Learning" (arXiv 2405.19547).
    """
    out = np.empty(len(images), np.float32)
    for part, block in padded(images, SOME):
        out[part] = targets.largest(normalised(block))[: part.stop - part.start]
    return out


def covariance(targets: npt.NDArray[Any]) -> F64:
    """Return Σ, the mean of t·tᵀ over targets [t, d] of unit length (float64[d, d])."""
    whole = np.zeros((targets.shape[1], targets.shape[1]))
    for start in range(0, len(targets), 1 << 16):
        rows = normalised(targets[start : start + (1 << 16)]).astype(np.float64)
        whole += rows.T @ rows
    return whole / max(1, len(targets))


def alignment(images: npt.NDArray[Any], sigma: F64) -> F32:
    """Return fᵀΣf of each image [n, d], of unit length (float32[n]): "Variance Alignment Score" (arXiv 2402.02055)."""
    out = np.empty(len(images), np.float32)
    for part, block in padded(images, len(sigma)):
        rows = normalised(block).astype(np.float64)
        out[part] = np.einsum("nd,nd->n", rows @ sigma, rows)[: part.stop - part.start]
    return out
