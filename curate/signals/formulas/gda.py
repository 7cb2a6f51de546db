"""A classifier without training, from a few labelled embeddings: Gaussians with one covariance (GDA).

In: embeddings float32[N, d] with labels 0 to k - 1, rows of norm 1. Out: a `Classifier`, and for any embeddings the
class and its probability. Where class prompts' embeddings are at hand, CLIP's zero-shot logits are added.

    Σ⁻¹ = d · pinv((N - 1) Σ̂ + tr(Σ̂) I)    Σ̂ of the examples less their class's mean, over N - 1
    W = Σ⁻¹ μᵀ      b = log(1/k) - ½ μ Σ⁻¹ μᵀ      logits = 100 x Tᵀ + α (x W + b)

Trade-offs: fitting solves one system of d x d, some tenths of a second. All classes are equally probable before the
image is seen, and have one shape. α, the weight of examples against prompts, is chosen on held-out examples (the paper
tries the powers of ten from 1e-4 to 1e4). Computed in float64: entries of Σ⁻¹ reach thousands.

Source: Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, 2024; its Σ⁻¹ is the ridge
estimator of Kubokawa and Srivastava, 2008.
"""

from dataclasses import dataclass

import numpy as np

from curate.base.errors import RecipeError
from curate.base.numeric.arrays import F32, F64, I64
from curate.signals.formulas.embedding_scores import Tags

ROWS = 8192  # at a time, which are turned to float64
_ROUNDING = 1e-12  # a smaller variance of rows of norm 1 is float32's rounding


@dataclass(frozen=True, eq=False)
class Classifier:
    """x ↦ x · weight + bias, one logit for each class."""

    weight: F64  # W, float64[d, k]
    bias: F64  # b, float64[k]

    def logits(self, images: F32, texts: F32 | None = None, alpha: float = 1.0) -> F64:
        """Return 100 x Tᵀ + α (x W + b) of images x and texts T, a prompt of each class; without T the second term."""
        x = images.astype(np.float64)  # less would lose what differs between logits of hundreds
        logits: F64 = alpha * (x @ self.weight + self.bias)
        return logits if texts is None else logits + 100.0 * (x @ texts.T.astype(np.float64))

    def classify(self, images: F32, texts: F32 | None = None, alpha: float = 1.0) -> Tags:
        """Return the class of each image, and the softmax of its `logits`: without texts, at α = 1, the posteriors."""
        probabilities = np.empty((len(images), len(self.bias)), np.float32)
        for start in range(0, len(images), ROWS):
            logits = self.logits(images[start : start + ROWS], texts, alpha)
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities[start : start + ROWS] = weights / weights.sum(axis=1, keepdims=True)
        return Tags(probabilities, probabilities.argmax(axis=1))


def fit_classifier(embeddings: F32, labels: I64, classes: int) -> Classifier:
    """Fit the Gaussians to labelled examples, some of each class (4 to 16 do well in the paper); the module says how.

    Raises RecipeError where the examples of each class are all alike, as with one each, and tell no covariance.
    """
    x = embeddings.astype(np.float64)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(classes)])
    centred = x - means[labels]
    size, dimension = x.shape
    scatter = centred.T @ centred  # (N - 1) Σ̂: the centred rows have mean 0
    trace = np.trace(scatter) / max(size - 1, 1)
    if trace <= _ROUNDING:
        what = f"the {size} examples of {classes} classes do not differ within any class"
        raise RecipeError(f"{what}; accepted: two different examples of a class at least")
    # With the ridge above 0 the matrix is positive definite, so that its pseudo-inverse is its inverse.
    weight = dimension * np.linalg.solve(scatter + trace * np.eye(dimension), means.T)
    return Classifier(weight, -np.log(classes) - 0.5 * np.einsum("kd,dk->k", means, weight))
