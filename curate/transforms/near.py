"""Near-duplicates on Beam: hashes and embeddings meet in buckets, and the edges found there are merged into groups.

What crosses the network: 8 bytes a distinct hash and band; an embedding a row and cell that it visits; of the edges a
spanning forest. The groups come back to every worker, 16 bytes for each row or hash that is near another. A runner on one
machine would hold all of that in memory, so there the units' states come together, and `local` searches on all cores.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton, TaggedOutput

from curate.decide import cells, cosine, hamming, local
from curate.decide import state as ballot
from curate.decide.near import U64, Groups, forest
from curate.decide.state import UnitState
from curate.recipe.rules import Near
from curate.run.context import RunContext
from curate.transforms.sums import VectorSum

_ROWS_A_UNIT = 10_000  # about, where footers do not tell; without influence on the result


class FindGroups(beam.PTransform):
    """PCollection[UnitState] → one Groups, those of a pass by nearness, and one int64[2], `cosine.recall_counts`."""

    def __init__(self, context: RunContext, by: Near, n_buckets: int) -> None:
        super().__init__()
        self._context, self._by, self._n = context, by, n_buckets

    def expand(self, ballots: beam.PCollection[UnitState]) -> Any:
        """Over the rows still in."""
        context, by = self._context, self._by
        if context.is_local_runner:
            together = ballots | "Together" >> beam.combiners.ToList()
            found = together | "Search" >> beam.Map(lambda units: local.find_groups(context, by, units))
            return found | "Groups" >> beam.Map(lambda pair: pair[0]), found | "Recall" >> beam.Map(
                lambda pair: pair[1]
            )
        if by.phash:
            edges, counts = self._hashes(ballots), ballots.pipeline | "All" >> beam.Create([np.zeros(2, np.int64)])
        else:
            edges, counts = self._embeddings(ballots)
        return edges | "Forest" >> beam.CombineGlobally(Forest()) | "Groups" >> beam.Map(Groups.of), counts

    def _hashes(self, ballots: beam.PCollection[UnitState]) -> beam.PCollection[U64]:
        context, n = self._context, self._n
        assert self._by.phash is not None
        distance = self._by.phash.distance
        masks = hamming.bands(distance, context.pool.rows or _ROWS_A_UNIT * n)
        return (
            ballots
            | "Bands" >> beam.FlatMap(lambda b: hamming.split_bands(ballot.alive_hashes(context, b), masks, n))
            | "Meet" >> beam.GroupByKey()
            | "Edges"
            >> beam.Map(
                lambda item: hamming.edges_in_bucket(np.concatenate(list(item[1])), masks[item[0][0]], distance)
            )
        )

    def _embeddings(self, ballots: beam.PCollection[UnitState]) -> tuple[beam.PCollection[U64], beam.PCollection[Any]]:
        context = self._context
        assert self._by.embedding is not None
        model, least = self._by.embedding.of, self._by.embedding.cosine
        count = ballots | "Count" >> beam.Map(lambda b: len(ballot.alive_vectors(context, b, model)[0]))
        rows = count | "Rows" >> beam.CombineGlobally(sum)
        trained = (
            ballots
            | "Sample" >> beam.Map(lambda b, rows: _sample(context, b, model, rows), AsSingleton(rows))
            | "Together" >> beam.combiners.ToList()
            | "Train" >> beam.Map(_train, AsSingleton(rows))
        )
        visits = ballots | "Visit" >> beam.FlatMap(
            # Not a generator itself, of which Beam would infer types that tagged outputs do not have.
            lambda b, found: iter(_visits(context, b, model, least, *found)),
            AsSingleton(trained),
        ).with_outputs("recall", main="visits")
        edges = visits.visits | "Meet" >> beam.GroupByKey() | "Edges" >> beam.Map(lambda item: _edges(item[1], least))
        return edges, visits.recall | "Recall" >> beam.CombineGlobally(VectorSum())


class Forest(beam.CombineFn):
    """Merges edges into a spanning forest; a worker holds about as many as there are nodes."""

    def create_accumulator(self) -> list[U64]:
        """No edges."""
        return []

    def add_input(self, accumulator: list[U64], element: U64) -> list[U64]:
        """Edges wait until they are as many as those merged."""
        accumulator.append(element)
        if sum(map(len, accumulator[1:])) > len(accumulator[0]) + (1 << 20):
            return [forest(accumulator)]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[U64]]) -> list[U64]:
        """The forest of all parts."""
        return [forest(part for parts in accumulators for part in parts)]

    def extract_output(self, accumulator: list[U64]) -> U64:
        """The forest."""
        return forest(accumulator)


def _sample(context: RunContext, b: UnitState, model: str, rows: int) -> Any:
    _, vectors = ballot.alive_vectors(context, b, model)
    return vectors[cells.sample_rows(vectors, rows, cells.cell_count(rows))]


def _train(samples: list[Any], rows: int) -> tuple[Any, Any]:
    """Centroids, and the rows of the sample by which the recall is told."""
    sample = np.concatenate(samples)
    return cells.train(sample, cells.cell_count(rows)), sample[cells.sample_rows(sample, rows, cells.PROBED)]


def _visits(context: RunContext, b: UnitState, model: str, least: float, centroids: Any, probes: Any) -> Iterator[Any]:
    """(cell, (nodes, embeddings, at home)) of each cell that some row visits; `recall_counts` as output `recall`."""
    nodes, vectors = ballot.alive_vectors(context, b, model)
    cell_of = cells.visits(vectors, centroids)
    counts = np.zeros(2, np.int64)
    if len(centroids) > 1:
        counts = cosine.recall_counts(vectors, cell_of, probes, cells.visits(probes, centroids), least)
    yield TaggedOutput("recall", counts)
    for cell, rows, at_home in cells.cell_rows(cell_of):
        # Not <, of which Beam would infer that it gives one bool.
        yield cell, (nodes[rows], vectors[rows], np.less(np.arange(len(rows)), at_home))


def _edges(parts: Iterable[tuple[U64, Any, Any]], least: float) -> U64:
    nodes, vectors, home = (np.concatenate(part) for part in zip(*parts, strict=True))
    return cosine.edges_in_cell(nodes, vectors, home, least)
