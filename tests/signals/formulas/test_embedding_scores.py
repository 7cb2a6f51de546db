"""Signals on embeddings against loops written from the formulas, their invariances and their edges.

Also those of `curate.publish.drift`, which share their inputs.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.base.errors import RecipeError
from curate.base.numeric.vectors import normalized
from curate.publish import drift
from curate.publish.drift import draw_directions, measure_drift
from curate.signals.formulas import embedding_scores
from curate.signals.formulas.embedding_scores import (
    fit_classifier,
    fooling_score,
    mean_shift,
    nearest_centroid,
    quality_axis,
    quality_score,
    tag_contexts,
)


def unit(*shape, seed=0, center=None, spread=1.0):
    x = spread * np.random.default_rng(seed).standard_normal(shape) + (0 if center is None else center)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def norm(a):
    return math.sqrt(dot(a, a))


def mean(rows):
    return [math.fsum(float(x) for x in column) / len(rows) for column in zip(*rows, strict=True)]


def subtract(a, b):
    return [float(x) - float(y) for x, y in zip(a, b, strict=True)]


def softmax(logits):
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [x / math.fsum(weights) for x in weights]


def assert_tags(tags, expected, atol):
    assert tags.probabilities.dtype == np.float32 and tags.best.dtype == np.int64
    np.testing.assert_allclose(tags.probabilities, expected, atol=atol)
    np.testing.assert_allclose(tags.probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(tags.best, tags.probabilities.argmax(axis=1))
    np.testing.assert_array_equal(tags.probability, tags.probabilities.max(axis=1))


# Mean shift and fooling score

GAP = np.full(16, 0.6)  # images lie around it, and texts opposite


def shift(images, texts, g):
    return normalized(images - g), normalized(texts + g)


def test_shift_by_loops():
    images, texts = unit(30, 16, center=GAP), unit(20, 16, seed=1, center=-GAP)
    g = mean_shift(images, texts)
    np.testing.assert_allclose(g, 0.25 * np.array(subtract(mean(images), mean(texts))), atol=1e-7)
    for rows, found, sign in ((images, shift(images, texts, g)[0], -1), (texts, shift(images, texts, g)[1], 1)):
        for row, moved in zip(rows, found, strict=True):
            there = [float(x) + sign * float(y) for x, y in zip(row, g, strict=True)]
            np.testing.assert_allclose(moved, np.array(there) / norm(there), atol=1e-6)
    vanished, _ = shift(images, texts, images[2])
    assert np.isfinite(vanished).all() and not vanished[2].any()


@pytest.mark.parametrize("shifted", [False, True])
def test_fooling_score_by_loops(shifted):
    images, prompts = unit(40, 16, center=GAP), unit(25, 16, seed=1, center=-GAP)
    g = mean_shift(images, prompts) if shifted else None
    found = fooling_score(images, prompts, g)
    assert found.dtype == np.float32 and found.shape == (40,)
    moved = shift(images, prompts, g) if shifted else (images, prompts)
    np.testing.assert_allclose(found, [min(dot(x, t) for t in moved[1]) for x in moved[0]], atol=1e-6)
    order = np.random.default_rng(0).permutation(25)
    np.testing.assert_allclose(fooling_score(images, prompts[order], g), found, atol=1e-6)
    assert fooling_score(images[:0], prompts, g).shape == (0,)


# Quality axis


def test_quality_by_loops():
    good, bad, images = unit(7, 12), unit(5, 12, seed=1), unit(30, 12, seed=2)
    axis = quality_axis(good, bad)
    direction = subtract(mean(good), mean(bad))
    np.testing.assert_allclose(axis, direction, atol=1e-7)
    found = quality_score(images, axis)
    assert axis.dtype == found.dtype == np.float32 and found.shape == (30,)
    np.testing.assert_allclose(found, [dot(x, direction) / norm(x) / norm(direction) for x in images], atol=1e-6)
    assert quality_score(good, axis).mean() > quality_score(bad, axis).mean()
    np.testing.assert_allclose(quality_score(images, quality_axis(bad, good)), -found, atol=1e-6)
    np.testing.assert_allclose(quality_score(images, 1000 * axis), found, atol=1e-6)
    np.testing.assert_allclose(quality_score(axis[None] / norm(axis), axis), [1], atol=1e-6)
    assert quality_score(images[:0], axis).shape == (0,)
    with pytest.raises(RecipeError, match="same mean"):
        quality_axis(good, good.copy())


# Context tags


@pytest.mark.parametrize(("temperature", "cells"), [(1.0, 1), (0.03, 100), (0.01, embedding_scores.CELLS)])
def test_contexts_by_loops(temperature, cells, monkeypatch):
    monkeypatch.setattr(embedding_scores, "CELLS", cells)
    images, prompts = unit(20, 16), unit(4, 3, 16, seed=1)
    expected, free = [], []
    for x in images:
        sums = [math.fsum(math.exp(dot(x, prompts[y, z]) / temperature) for y in range(4)) for z in range(3)]
        expected.append([s / math.fsum(sums) for s in sums])
        free.append(softmax([dot(x, t) / temperature for t in prompts[0]]))
    assert_tags(tag_contexts(images, prompts, temperature), expected, atol=3e-5)
    assert_tags(tag_contexts(images, prompts[0][None], temperature), free, atol=3e-5)


def test_contexts_without_doubt():
    images, prompts = unit(50, 16), unit(4, 3, 16, seed=1)
    sharp = tag_contexts(images, prompts, 1e-7)  # exponents of ten millions: no overflow
    nearest = np.einsum("nd,yzd->nyz", images, prompts).max(axis=1).argmax(axis=1)
    np.testing.assert_array_equal(sharp.best, nearest)
    assert (sharp.probability > 0.99).mean() > 0.9 and np.isfinite(sharp.probabilities).all()
    assert tag_contexts(images[:0], prompts).probabilities.shape == (0, 3)
    assert not tag_contexts(images, np.repeat(prompts[:, :1], 4, axis=1)).best.any()  # of equal ones the first


# Nearest centroid


def test_nearest_centroid_is_its_definition(monkeypatch):
    images, centroids = unit(500, 8, seed=1), unit(33, 8, seed=2)
    expected = [int(np.argmax(centroids @ image)) for image in images]
    tied = np.concatenate([centroids, centroids[:1]])
    near = normalized(centroids[0] + 0.1 * unit(400, 8, seed=3))
    for cells in (1, 20, 1000, embedding_scores.CELLS):  # centroids in parts too
        monkeypatch.setattr(embedding_scores, "CELLS", cells)
        assert nearest_centroid(images, centroids).tolist() == expected
        assert not nearest_centroid(near, tied).any()  # of equal ones the first
    assert nearest_centroid(images[:2], np.ones((3, 8), np.float32)).tolist() == [0, 0]
    assert len(nearest_centroid(images[:0], centroids)) == 0


# Training-free classifier


def labelled(k, per_class, d, seed=0, spread=0.5):
    centers = unit(k, d, seed=seed + 100)
    labels = np.repeat(np.arange(k), per_class)
    x = centers[labels] + spread * np.random.default_rng(seed).standard_normal((k * per_class, d)) / math.sqrt(d)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def gaussian_by_loops(x, labels, k):
    """W and b by the definition, with lists; only the inverse is numpy's (Gauss-Jordan would be no clearer)."""
    n, d = x.shape
    mus = [mean([row for row, label in zip(x, labels, strict=True) if label == c]) for c in range(k)]
    centered = [subtract(row, mus[label]) for row, label in zip(x, labels, strict=True)]
    cov = [[math.fsum(row[i] * row[j] for row in centered) / (n - 1) for j in range(d)] for i in range(d)]
    trace = math.fsum(cov[i][i] for i in range(d))
    inverse = d * np.linalg.inv([[(n - 1) * cov[i][j] + trace * (i == j) for j in range(d)] for i in range(d)])
    w = [[dot(inverse[i], mu) for mu in mus] for i in range(d)]
    b = [math.log(1 / k) - dot(mu, [dot(inverse[i], mu) for i in range(d)]) / 2 for mu in mus]
    return np.array(w), np.array(b), np.array(mus), inverse


@pytest.mark.parametrize(("k", "per_class", "d"), [(3, 4, 10), (2, 2, 20), (4, 30, 6), (1, 5, 8), (3, 4, 40)])
def test_classifier_by_loops(k, per_class, d, monkeypatch):
    x, labels = labelled(k, per_class, d)
    if d == 40:  # all in a plane: the ridge makes the covariance invertible
        x = normalized(x[:, :2] @ unit(2, 40, seed=3))
        monkeypatch.setattr(embedding_scores, "ROWS", 10)
    w, b, mus, inverse = gaussian_by_loops(x, labels, k)
    classifier = fit_classifier(x, labels, k)
    np.testing.assert_allclose(classifier.weight, w, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(classifier.bias, b, rtol=1e-8)
    images, texts = unit(15, d, seed=5), unit(k, d, seed=6)
    expected = [[100 * dot(v, texts[c]) + 0.3 * (dot(v, w[:, c]) + b[c]) for c in range(k)] for v in images]
    np.testing.assert_allclose(classifier.logits(images, texts, 0.3), expected, rtol=1e-8, atol=1e-8)
    assert_tags(classifier.classify(images, texts, 0.3), [softmax(row) for row in expected], atol=1e-6)
    # With equal priors the posterior is the softmax of -½ (x - μ)ᵀ Σ⁻¹ (x - μ): another way to the same numbers.
    away = [[np.array(subtract(v, mu)) for mu in mus] for v in images]
    posterior = [softmax([-0.5 * float(a @ inverse @ a) for a in row]) for row in away]
    assert_tags(classifier.classify(images), posterior, atol=1e-6)


def test_edges_of_the_classifier():
    x, labels = labelled(3, 2, 8)
    classifier = fit_classifier(x, labels, 3)
    tags = classifier.classify(x[:0], x[:3])
    assert tags.probabilities.shape == (0, 3) and tags.best.shape == (0,)
    assert fit_classifier(x[:4], np.array([0, 0, 1, 2]), 3).classify(x).probabilities.shape == (6, 3)
    same = np.repeat(x[::2], 3, axis=0), np.repeat(labels[::2], 3)
    for rows, ids, k in ((x[::2], labels[::2], 3), (x[:1], labels[:1], 1), (*same, 3)):
        with pytest.raises(RecipeError, match="do not differ within any class"):
            fit_classifier(rows, ids, k)


# Drift


def w2_by_repetition(x, y):
    """W²: each value repeated until the sets are equally large, which changes no distribution; sorted pairs are optimal."""
    pairs = zip(sorted(float(v) for v in x for _ in y), sorted(float(v) for v in y for _ in x), strict=True)
    return math.fsum((a - b) ** 2 for a, b in pairs) / (len(x) * len(y))


def drift_by_loops(raw, curated, theta):
    squares = [w2_by_repetition([dot(r, t) for r in raw], [dot(c, t) for c in curated]) for t in theta]
    away = subtract(mean(raw), mean(curated))
    control, expected = [dot(t, away) ** 2 for t in theta], dot(away, away) / len(away)
    size = len(theta)
    w, c = math.fsum(squares) / size, math.fsum(control) / size
    spread = math.fsum((b - c) ** 2 for b in control)
    gamma = math.fsum((a - w) * (b - c) for a, b in zip(squares, control, strict=True)) / spread
    rest = math.fsum((a - w - gamma * (b - c)) ** 2 for a, b in zip(squares, control, strict=True))
    error = math.sqrt(rest / (size - 2) * (1 / size + (c - expected) ** 2 / spread))
    return w - gamma * (c - expected), error


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 13), (7, 21), (1, 9), (5, 1), (1, 1)])
def test_drift_by_loops(n, m, monkeypatch):
    monkeypatch.setattr(drift, "BLOCK", 7 if n == 20 else drift.BLOCK)
    raw, curated = unit(n, 6), unit(m, 6, seed=1, center=0.4)
    found = measure_drift(raw, curated, seed=3, directions=20)
    squared, error = drift_by_loops(raw, curated, draw_directions(20, 6, 3))
    assert found.squared == pytest.approx(squared, rel=1e-5, abs=1e-7)
    assert found.standard_error == pytest.approx(error, rel=1e-3, abs=1e-7)
    assert found.distance == pytest.approx(math.sqrt(max(squared, 0)), rel=1e-5, abs=1e-4)


@given(st.integers(2, 9), st.integers(3, 40), st.integers(0, 2**63 - 1))
def test_a_mere_shift_is_exact(d, directions, seed):
    """W² = C then, so that the control variate leaves no error: SW² = ‖v‖² / d, and the standard error is 0."""
    x = unit(50, d)
    v = np.random.default_rng(seed).standard_normal(d).astype(np.float32)
    found = measure_drift(x, x + v, seed=seed, directions=directions)
    assert found.squared == pytest.approx(float(v @ v) / d, rel=1e-4)
    assert found.standard_error < 1e-4 * max(found.squared, 1e-3)


def test_directions_are_uniform_and_fixed():
    theta = draw_directions(20_000, 5, 0)
    assert theta.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(theta, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(theta.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(theta.T @ theta / len(theta), np.eye(5) / 5, atol=0.01)
    np.testing.assert_allclose((theta**4).mean(0), 3 / (5 * 7), atol=0.01)  # E θᵢ⁴ = 3 / (d (d + 2))
    for d in (5, 6):
        np.testing.assert_array_equal(draw_directions(40, d, 0)[:7], draw_directions(7, d, 0))
    assert np.abs(draw_directions(7, 5, 1) - theta[:7]).max() > 0.1
    # If another machine or version draws others, the same data have another drift.
    first = [-0.2325506308900329, -0.7347098256861928, -0.6372767657092261]
    second = [0.6039142939236282, 0.7911591638174256, -0.09671971413542174]
    np.testing.assert_allclose(draw_directions(2, 3, 0), [first, second], atol=1e-12)


def test_edges_of_drift():
    line = unit(5, 1)
    one = measure_drift(line, -line)  # of one dimension there is one direction
    assert one.squared == pytest.approx(w2_by_repetition(line[:, 0], -line[:, 0]), abs=1e-6)
    assert one.standard_error == pytest.approx(0, abs=1e-7)
    same_means = measure_drift(np.array([[1, 0], [-1, 0]], np.float32), np.array([[0, 1], [0, -1]], np.float32))
    assert same_means.squared > 0.1 and math.isfinite(same_means.standard_error)  # C is 0: plain Monte Carlo
    assert drift.Drift(-1e-9, 1e-9).distance == 0.0
