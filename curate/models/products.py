"""Multiplies embeddings with many others, and reduces the products to one number per row; on a GPU if there is one.

CPU and GPU agree to 1e-5. On a CPU, rows are converted to integers in float64, so that products of rows of length 1 are
exact. A library such as OpenBLAS (on AMD) may add numbers in an order that depends on a row's position, but exact sums
do not depend on the order. This takes twice the time of float32.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from curate.base.numeric.arrays import F32, F64, I64

SOME = 8192  # others per step, for a row's maximum
_ONE = 2.0**26  # the integer for 1: sums of products stay below 2⁵³
_TOGETHER = 64  # rows per step, so that their logits stay in the CPU cache


class Products:
    """Products of rows with others, times `scale`, with numpy."""

    def __init__(self, others: F32, scale: float = 1.0) -> None:
        """`others` are float32[dimension, n]."""
        self._others, self._scale = _integers(others), scale / _ONE**2
        self._out: F64 | None = None

    def log_sums(self, rows: F32, its_logit: F64, column: I64) -> F64:
        """Return log Σ exp over each row's products. `its_logit` replaces that in `column`, or is added if it is −1."""
        products = self._out = np.matmul(_integers(rows), self._others, out=self._out)
        products *= self._scale
        members = np.flatnonzero(column >= 0)
        products[members, column[members]] = its_logit[members]
        greatest, sums = np.empty(len(products), np.float32), np.empty(len(products))
        for start in range(0, len(products), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            logits = products[part].astype(np.float32)
            greatest[part] = np.maximum(logits.max(axis=1), its_logit[part])
            np.subtract(logits, greatest[part, None], out=logits)
            sums[part] = np.exp(logits, out=logits).sum(axis=1)
        return np.asarray(np.log(sums + np.where(column >= 0, 0.0, np.exp(its_logit - greatest))) + greatest)

    def largest(self, rows: F32) -> F32:
        """Return each row's largest product in absolute value."""
        integers, largest = _integers(rows), np.zeros(len(rows))
        for start in range(0, self._others.shape[1], SOME):
            products = integers @ self._others[:, start : start + SOME]
            np.maximum(largest, np.maximum(products.max(axis=1), -products.min(axis=1)), out=largest)
        return (largest * self._scale).astype(np.float32)


def _integers(rows: F32) -> F64:
    return np.rint(np.multiply(rows, _ONE, dtype=np.float64), order="C")


class TorchProducts(Products):
    """The same with torch, which keeps the others on a device."""

    def __init__(self, others: F32, scale: float, device: str) -> None:
        import torch

        self._torch, self._device = torch, device
        self._kept = torch.from_numpy(np.ascontiguousarray(others * np.float32(scale))).to(device)

    def _of(self, rows: F32) -> Any:
        return self._torch.from_numpy(rows).to(self._device) @ self._kept

    def log_sums(self, rows: F32, its_logit: F64, column: I64) -> F64:
        torch, logits = self._torch, self._of(rows)
        beside = torch.from_numpy(its_logit.astype(np.float32)).to(self._device)
        members = np.flatnonzero(column >= 0)
        at = torch.from_numpy(members).to(self._device)
        logits[at, torch.from_numpy(column[members]).to(self._device)] = beside[at]
        beside[at] = -float("inf")
        return np.asarray(torch.logsumexp(torch.cat([logits, beside[:, None]], dim=1), dim=1).cpu().numpy(), np.float64)

    def largest(self, rows: F32) -> F32:
        return np.asarray(self._of(rows).abs().amax(dim=1).cpu().numpy(), np.float32)


def products_with(others: F32, scale: float = 1.0) -> Products:
    """Return products with others, float32[dimension, n], times `scale`, on a GPU if there is one."""
    device = find_gpu()
    return TorchProducts(others, scale, device) if device else Products(others, scale)


@cache
def find_gpu() -> str | None:
    """Return "cuda" if there is a GPU and torch can use it; otherwise None."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):  # without one, do not import torch, which takes seconds
        return None
    try:
        import torch
    except ImportError:
        return None
    return "cuda" if torch.cuda.is_available() else None
