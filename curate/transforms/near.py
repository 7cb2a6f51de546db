"""Near-duplicates on Beam: hashes and embeddings meet in buckets, and the edges found there are merged into groups.

What crosses the network: 8 bytes a distinct hash and band; an embedding a row and cell that it visits; of the edges a
spanning forest. The groups come back to every worker, 16 bytes for each row or hash that is near another.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from curate.decide import ballot, cells, cosine, hamming
from curate.decide.ballot import Ballot
from curate.decide.near import U64, Groups, forest
from curate.job import Job
from curate.recipe import Near

_ROWS_A_UNIT = 10_000  # about, where footers do not tell; without influence on the result


class FindGroups(beam.PTransform):
    """PCollection[Ballot] → PCollection of one Groups: those of a pass by nearness."""

    def __init__(self, job: Job, by: Near, n_buckets: int) -> None:
        super().__init__()
        self._job, self._by, self._n = job, by, n_buckets

    def expand(self, ballots: beam.PCollection[Ballot]) -> beam.PCollection[Groups]:
        """Over the rows still in."""
        edges = self._hashes(ballots) if self._by.phash else self._embeddings(ballots)
        return edges | "Forest" >> beam.CombineGlobally(Forest()) | "Groups" >> beam.Map(Groups.of)

    def _hashes(self, ballots: beam.PCollection[Ballot]) -> beam.PCollection[U64]:
        job, n = self._job, self._n
        assert self._by.phash is not None
        distance = self._by.phash.distance
        masks = hamming.bands(distance, job.pool.rows or _ROWS_A_UNIT * n)
        return (
            ballots
            | "Bands" >> beam.FlatMap(lambda b: hamming.split_bands(ballot.alive_hashes(job, b), masks, n))
            | "Meet" >> beam.GroupByKey()
            | "Edges"
            >> beam.Map(
                lambda item: hamming.edges_in_bucket(np.concatenate(list(item[1])), masks[item[0][0]], distance)
            )
        )

    def _embeddings(self, ballots: beam.PCollection[Ballot]) -> beam.PCollection[U64]:
        job = self._job
        assert self._by.embedding is not None
        model, least = self._by.embedding.of, self._by.embedding.cosine
        count = ballots | "Count" >> beam.Map(lambda b: len(ballot.alive_vectors(job, b, model)[0]))
        rows = count | "Rows" >> beam.CombineGlobally(sum)
        centroids = (
            ballots
            | "Sample" >> beam.Map(lambda b, rows: _sample(job, b, model, rows), AsSingleton(rows))
            | "Together" >> beam.combiners.ToList()
            | "Train" >> beam.Map(_train, AsSingleton(rows))
        )
        return (
            ballots
            | "Visit" >> beam.FlatMap(lambda b, found: _visits(job, b, model, found), AsSingleton(centroids))
            | "Meet" >> beam.GroupByKey()
            | "Edges" >> beam.Map(lambda item: _edges(item[1], least))
        )


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


def _sample(job: Job, b: Ballot, model: str, rows: int) -> Any:
    _, vectors = ballot.alive_vectors(job, b, model)
    return vectors[cells.sample_rows(vectors, rows, cells.cell_count(rows))]


def _train(samples: list[Any], rows: int) -> Any:
    return cells.train(np.concatenate(samples), cells.cell_count(rows))


def _visits(job: Job, b: Ballot, model: str, centroids: Any) -> Iterator[tuple[int, tuple[U64, Any, Any]]]:
    """(cell, (nodes, embeddings, at home)) of each cell that some row visits."""
    nodes, vectors = ballot.alive_vectors(job, b, model)
    for cell, rows, at_home in cells.cell_rows(cells.visits(vectors, centroids)):
        # Not <, of which Beam would infer that it gives one bool.
        yield cell, (nodes[rows], vectors[rows], np.less(np.arange(len(rows)), at_home))


def _edges(parts: Iterable[tuple[U64, Any, Any]], least: float) -> U64:
    nodes, vectors, home = (np.concatenate(part) for part in zip(*parts, strict=True))
    return cosine.edges_in_cell(nodes, vectors, home, least)
