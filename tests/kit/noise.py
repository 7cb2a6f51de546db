"""A signal that differs by about 1e-6 each time it is computed, as models do: column `noisy`."""

import os

import numpy as np
import pyarrow as pa

from curate.base import ids
from curate.recipe.section import Section
from curate.signals.signal import SignalKind, TextSignal


class Noise(Section):
    """The signal's section: it has no keys."""


def noisy(captions):
    noise = np.frombuffer(os.urandom(8 * len(captions)), np.uint64) / 2**64 * 1e-6
    values = [text and ids.hash64(text) / 2**64 + more for text, more in zip(captions.to_pylist(), noise, strict=True)]
    return [pa.array(values, pa.float64())]


NOISY = TextSignal("noise", (pa.field("noisy", pa.float64()),), "1", compute=noisy)
KIND = SignalKind("noise", Noise, lambda name, section, known: None, lambda name, section, built: [NOISY])


def follows_from_scores(run):
    """That each verdict of the rule `best`, the better half by `noisy`, is what the stored scores say."""
    scores = run.table("scores", ["noisy"])["noisy"].to_numpy()
    rules = run.table("decisions", ["rule"])["rule"].to_pylist()
    reached = ~np.isnan(scores)
    values = np.sort(scores[reached])[::-1]
    threshold = values[int(len(values) * 0.5)]
    [rule] = [one for one in run.run["rules"] if one["name"] == "best"]
    assert rule["threshold"] == threshold
    dropped = np.array([one == "best" for one in rules])
    assert (dropped[reached] == (scores[reached] < threshold)).all()
