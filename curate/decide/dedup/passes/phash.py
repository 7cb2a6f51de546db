"""Passes by perceptual hashes that are equal, or differ in at most k of 64 bits (see `hamming`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import I64, U64, Mask, whole
from curate.decide.dedup import hamming
from curate.decide.dedup.groups import Groups, label_hashes
from curate.decide.dedup.passes.dedup_pass import ImageNearness, KeyPass, NearnessKind, Part
from curate.recipe.measure import Measure
from curate.recipe.section import Section
from curate.store.tables import UnitTables


class PhashDistance(Section):
    """Finds images with similar perceptual hashes. It needs `measure: {image: {phash: true}}`.

    For photographs, a distance of up to 8 rarely joins different images. In pools of many millions of images, use a
    smaller distance. At a distance of 4 or more, curate also joins different drawings, logos, and flat graphics.
    """

    example: ClassVar[Any] = {"distance": 4}

    distance: int = Field(examples=[4], ge=1, le=16, strict=True)
    """Two images are near if their hashes differ in at most this many of their 64 bits."""


@dataclass(frozen=True)
class PhashNearness(ImageNearness):
    """Hashes within a distance; nodes are the hashes, so equal ones need no comparison."""

    distance: int
    rounds = 1  # to count the rows

    def read(self, tables: UnitTables, surviving: Mask) -> tuple[I64, Any]:
        hashes = tables.read("samples", ["phash"])["phash"]
        rows = np.flatnonzero(surviving & hashes.is_valid().to_numpy())
        return rows, hashes.take(pa.array(rows, pa.int64())).to_numpy().astype(np.uint64)

    def nodes(self, unit: int, rows: I64, values: Any) -> U64:
        return np.asarray(values, np.uint64)

    def survey(self, nodes: U64, values: Any, plan: Any) -> int:
        return len(nodes)

    def plan(self, plan: Any, surveys: list[int]) -> int:
        return sum(surveys)

    def split(self, nodes: U64, values: Any, plan: int, n_buckets: int) -> Iterator[tuple[tuple[int, int], Part]]:
        masks = hamming.bands(self.distance, plan)
        for (band, bucket), hashes in hamming.split_bands(nodes, masks, n_buckets):
            yield (int(masks[band].astype(np.int64)), bucket), (hashes,)

    def groups(self, bucket: Any, part: Part) -> Groups:
        return Groups.of(hamming.edges_in_bucket(part[0], np.int64(bucket[0]).astype(np.uint64), self.distance))

    def keys(self, tables: UnitTables, groups: Groups) -> pa.Array:
        return label_hashes(whole(tables.read("samples", ["phash"])["phash"]), groups)

    def nearest(self, values: Any, evaluation: pa.Table) -> I64:
        return hamming.nearest(values, evaluation["phash"].to_numpy().astype(np.uint64), self.distance)


def _build(section: PhashDistance, measure: Measure, rows: int | None) -> PhashNearness:
    return PhashNearness(section.distance)


def _check(section: PhashDistance | None, measure: Measure) -> None:
    if not measure.image.phash:
        raise ValueError("dedup by phash needs measure: {image: {phash: true}}")


class _PhashEquality(KeyPass):
    def check(self, measure: Measure) -> None:
        _check(None, measure)


PHASH_EQUALITY = _PhashEquality("phash", needs_images=True)
PHASH_DISTANCE = NearnessKind("phash", PhashDistance, "{distance: k}", _build, _check, _check, compares_images=True)
