"""How near an image is to target images: NormSim and the variance alignment score.

Sources: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive Learning" (arXiv
2405.19547): ‖f·Tᵀ‖ in the norms ∞ and 2; "Variance Alignment Score" (arXiv 2402.02055): fᵀΣf, Σ the mean of t·tᵀ.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from curate.base.numeric.arrays import F32, F64
from curate.base.numeric.spherical import padded
from curate.base.numeric.vectors import normalised
from curate.models.products import SOME, Products


def largest_cosine(images: npt.NDArray[Any], targets: Products) -> F32:
    """Return the largest |cosine| of each image [n, d] with any target, of unit length (float32[n])."""
    out = np.empty(len(images), np.float32)
    for part, block in padded(images, SOME):
        out[part] = targets.largest(normalised(block))[: part.stop - part.start]
    return out


def covariance(targets: npt.NDArray[Any]) -> F64:
    """Return Σ, the mean of t·tᵀ over targets [t, d] of unit length (float64[d, d])."""
    whole = np.zeros((targets.shape[1], targets.shape[1]))
    for start in range(0, len(targets), 1 << 16):
        some = normalised(targets[start : start + (1 << 16)]).astype(np.float64)
        whole += some.T @ some
    return whole / max(1, len(targets))


def alignment(images: npt.NDArray[Any], sigma: F64) -> F32:
    """Return fᵀΣf of each image [n, d], of unit length (float32[n])."""
    out = np.empty(len(images), np.float32)
    for part, block in padded(images, len(sigma)):
        rows = normalised(block).astype(np.float64)
        out[part] = np.einsum("nd,nd->n", rows @ sigma, rows)[: part.stop - part.start]
    return out
