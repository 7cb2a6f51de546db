"""Captions and pictures that encoders are compared on."""

import numpy as np
from PIL import Image

TEXTS = ["a red dog", "", "x", "a photo of " + "a very long caption " * 40, "日本語 🐈", "boat", "a, b. c!", "A " * 30]


def picture(seed, mode="RGB", size=(90, 70)):
    """Noise."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)
