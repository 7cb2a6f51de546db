"""How far the curated set has drifted from the pool, by source and model that keeps embeddings: table `drift`.

Of each unit a few rows are taken, by a hash of their uid, so the same whatever the sharding, and merged into those of a
source. Distances are compared with that of a random part of the pool: two samples of one set are never at distance 0.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from curate.base import ids
from curate.base.numeric.arrays import whole
from curate.base.numeric.mix import mix64
from curate.base.numeric.vectors import embedding_matrix
from curate.publish.wasserstein import measure_drift
from curate.recipe.measure import Measure
from curate.store.facts import DriftFacts
from curate.store.tables import UnitTables

SAMPLED = 2048  # rows of the pool, of what is kept, and of the part of the pool to compare with, as far as there are


class Group(NamedTuple):
    """What a sample is of: a source's rows by a model, image or text, of the whole pool or of what is kept."""

    source: str
    model: str
    side: str
    kept: bool


class DriftSample(NamedTuple):
    """The rows with the smallest hashes: uint64 [n] ascending, embeddings float16 [n, dimension]."""

    hashes: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.float16]


def sample_unit(measure: Measure, source: str, tables: UnitTables) -> Iterator[tuple[Group, DriftSample]]:
    """Yield a unit's part of each sample of its source."""
    kept = tables.read("decisions", ["kept"])["kept"].to_numpy()
    for model in measure.kept:
        table = tables.read("embeddings", ["uid", f"{model.prefix}image", f"{model.prefix}text"])
        readable = table["uid"].is_valid().to_numpy()
        high, low = ids.uid_halves(whole(table["uid"]))
        hashes = mix64(high ^ mix64(low))
        for side, column in zip(("image", "text"), table.columns[1:], strict=True):
            rows = embedding_matrix(column)
            usable = readable & rows.any(axis=1)  # zeros are of rows without an embedding
            for is_kept, mask in ((False, usable), (True, usable & kept)):
                yield Group(source, model.name, side, is_kept), merge([DriftSample(hashes[mask], rows[mask])])


def merge(samples: Iterable[DriftSample]) -> DriftSample:
    """Return one sample of several: the first `SAMPLED` rows, and as many again to compare with."""
    hashes, rows = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    first = np.argsort(hashes, kind="stable")[: 2 * SAMPLED]
    return DriftSample(hashes[first], rows[first])


def measure_drifts(samples: dict[Group, DriftSample]) -> list[DriftFacts]:
    """Return the drift of each source, model and side; of a source of which nothing is kept there is none."""
    drifts = []
    for group in sorted(group for group in samples if not group.kept):
        pool, kept = samples[group].rows, samples[group._replace(kept=True)].rows[:SAMPLED]
        raw, part = pool[:SAMPLED], pool[-len(kept) :]
        if not len(kept) or not len(raw):
            continue
        drift = measure_drift(raw.astype(np.float32), kept.astype(np.float32))
        error = drift.standard_error / (2 * drift.distance) if drift.distance else None
        unchanged = measure_drift(raw.astype(np.float32), part.astype(np.float32)).distance
        names: dict[str, Any] = {"source": group.source, "model": group.model, "side": group.side}
        sizes: dict[str, Any] = {"pool_rows": len(raw), "kept_rows": len(kept)}
        distances: dict[str, Any] = {"distance": drift.distance, "standard_error": error, "unchanged": unchanged}
        drifts.append(DriftFacts(**names, **sizes, **distances))
    return drifts
