"""A pass by image embeddings with a cosine of at least x, compared in cells of the space (see `cosine` and `cells`)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.base.numeric.arrays import F32, I64, U64, Mask, whole
from curate.base.numeric.vectors import embedding_matrix
from curate.decide.dedup import cells, cosine, exact
from curate.decide.dedup.groups import Groups, row_nearest
from curate.decide.dedup.passes.dedup_pass import ImageNearness, Nearness, NearnessKind, Part
from curate.recipe.measure import Measure
from curate.recipe.section import AnyColumn, ColumnName, Section, is_none
from curate.store.tables import UnitTables


class EmbeddingCosine(Section):
    """Finds images with similar embeddings. It needs a model with `embeddings: true`, or embeddings with `keep: true`.

    Which cosine means "the same picture" depends on the model.
    """

    example: ClassVar[Any] = {"cosine": 0.95}

    cosine: float = Field(examples=[0.95], gt=0, lt=1, strict=True)
    """Two images are near if the cosine of their embeddings is at least this."""
    of: ColumnName = Field("clip", examples=["l14"])
    """Name of the model in `measure.clip`, or of the embeddings in `measure.embeddings`."""
    within: AnyColumn | None = Field(None, exclude_if=is_none, examples=["topic"])
    """Compare only rows that have the same value in this column, such as the same cluster (SemDeDup). curate does not
    compare rows without a value. null: compare all rows."""


_RECALL, _COPIES = -1, -2  # buckets of cells are ≥ 0, those of copies ≤ −2


class _Cells(NamedTuple):
    rows: int
    centroids: Any = None
    probes: Any = None


@dataclass(frozen=True)
class EmbeddingNearness(ImageNearness):
    """Embeddings of one model, the encoder, in `column` of table `embeddings`."""

    cosine: float
    column: str
    encoder: str | None
    rounds = 2

    def read(self, tables: UnitTables, surviving: Mask) -> tuple[I64, Any]:
        vectors = embedding_matrix(tables.read("embeddings", [self.column]).column(0))
        rows = np.flatnonzero(surviving & cells.usable(vectors))
        return rows, vectors[rows]

    def survey(self, nodes: U64, values: Any, plan: _Cells | None) -> Any:
        if plan is None:
            return len(nodes)
        return values[cells.sample_rows(values, plan.rows, cells.cell_count(plan.rows))]

    def plan(self, plan: _Cells | None, surveys: list[Any]) -> _Cells:
        if plan is None:
            return _Cells(sum(surveys))
        sample = np.concatenate(surveys)
        centroids = cells.train(sample, cells.cell_count(plan.rows))
        return _Cells(plan.rows, centroids, sample[cells.sample_rows(sample, plan.rows, cells.PROBED)])

    def split(self, nodes: U64, values: Any, plan: _Cells, n_buckets: int) -> Iterator[tuple[int, Part]]:
        """Yield the rows of each cell, pairs of equal rows, and counts of a sample's pairs for the recall."""
        first, copies = cosine.equal_rows(nodes, values)
        unit = int(nodes[0] >> np.uint64(32)) if len(nodes) else 0
        yield _COPIES - unit % n_buckets, (copies,)  # spread over workers
        among = np.zeros(len(nodes), bool)
        among[first] = True
        cell_of = cells.visits(values, plan.centroids, among)
        if len(plan.centroids) > 1:
            probe_cells = cells.visits(plan.probes, plan.centroids)
            yield _RECALL, (cosine.recall_counts(values, cell_of, plan.probes, probe_cells, self.cosine)[np.newaxis],)
        for cell, rows, at_home in cells.cell_rows(cell_of):
            yield cell, (nodes[rows], values[rows], np.less(np.arange(len(rows)), at_home))

    def groups(self, bucket: Any, part: Part) -> Groups:
        if bucket == _RECALL:
            return replace(Groups.join([]), recall=part[0].sum(axis=0))
        if bucket <= _COPIES:
            return cosine.groups_of_copies(part[0])
        nodes, vectors, home = part
        return cosine.groups_in_cell(nodes, vectors, home, self.cosine)

    def cosines(self, tables: UnitTables, groups: Groups) -> F32 | None:
        return row_nearest(tables.unit, tables.rows(), groups)

    def nearest(self, values: Any, evaluation: pa.Table) -> I64:
        return cosine.nearest(values, embedding_matrix(evaluation["image"]), self.cosine)


@dataclass(frozen=True)
class WithinNearness(EmbeddingNearness):
    """Compares rows with equal values of a column: each value is a cell, in which all pairs are compared."""

    within: str = ""
    rounds = 0

    def read(self, tables: UnitTables, surviving: Mask) -> tuple[I64, Any]:
        """Return hashes of the column's values, and embeddings ((uint64, float16[dimension])[n])."""
        column = whole(tables.read_measured([self.within])[self.within])
        rows, vectors = super().read(tables, surviving & column.is_valid().to_numpy(zero_copy_only=False))
        values = np.empty(len(rows), [("cell", np.uint64), ("vector", np.float16, vectors.shape[1:])])
        values["cell"] = exact.key_hashes(column.take(pa.array(rows, pa.int64())), np.ones(len(rows), bool))
        values["vector"] = vectors
        return rows, values

    def split(self, nodes: U64, values: Any, plan: Any, n_buckets: int) -> Iterator[tuple[int, Part]]:
        for cell, rows in exact.by_number(np.arange(len(values)), values["cell"]):
            yield cell, (nodes[rows], values["vector"][rows], np.ones(len(rows), bool))


def _build(section: EmbeddingCosine, measure: Measure, rows: int | None) -> Nearness:
    prefix = next(model.prefix for model in measure.kept if model.name == section.of)
    if section.within is not None:
        return WithinNearness(section.cosine, f"{prefix}image", section.of, section.within)
    return EmbeddingNearness(section.cosine, f"{prefix}image", section.of)


def _check(section: EmbeddingCosine, measure: Measure) -> None:
    if section.of not in {model.name for model in measure.kept}:
        needed = "in measure.clip, with embeddings: true, or in measure.embeddings, with keep: true"
        raise ValueError(f"dedup by embedding needs the model {section.of!r} {needed}")


def _check_against(section: EmbeddingCosine, measure: Measure) -> None:
    _check(section, measure)
    if section.within is not None:
        raise ValueError("dedup.against: remove embedding.within, because an evaluation set has no such column")
    if section.of not in {model.name for model in measure.embedders if model.encodes}:
        error = f"needs a model of measure.clip to encode its images, but {section.of!r} is precomputed"
        raise ValueError(f"dedup.against: {error}; accepted: a model, or phash")


EMBEDDING = NearnessKind(
    "embedding", EmbeddingCosine, "{cosine: x}", _build, _check, _check_against, compares_images=True, has_cosines=True
)
