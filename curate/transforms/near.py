"""Near-duplicates on Beam: what a pass by nearness compares meets in buckets, and the edges found become groups.

What crosses the network: of the hashes 8 bytes a distinct hash and band, of embeddings one a row and cell that it visits;
of edges a spanning forest. The groups come back to every worker, 16 bytes for each row or hash that is near another. A
runner on one machine would hold all of that in memory, so there the units' states come together, and `Nearness.search`
works on all cores.
"""

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsSingleton, TaggedOutput

from curate.decide.groups import Groups, forest
from curate.decide.passes.kinds import Nearness, join_parts
from curate.decide.per_unit import read_nodes
from curate.decide.rounds import find_groups
from curate.decide.settings import DecideSettings
from curate.decide.state import UnitState
from curate.numeric.arrays import U64
from curate.transforms.fold import Fold


@dataclass
class FindGroups(beam.PTransform):
    """Find the groups of a pass by nearness, and measure its recall."""

    settings: DecideSettings
    nearness: Nearness
    n_buckets: int
    on_one_machine: bool  # whether the runner works on this machine alone

    def expand(self, states: beam.PCollection[UnitState]) -> Any:
        """PCollection[UnitState] → PCollection of one Groups over the rows still in, and one int64[2], the sum of `Nearness.recall`."""
        if self.on_one_machine:
            together = states | "Together" >> beam.combiners.ToList()
            found = together | "Search" >> beam.Map(lambda units: find_groups(self.settings, self.nearness, units))
            return found | "Groups" >> beam.Keys(), found | "Recall" >> beam.Values()
        plan = states.pipeline | beam.Create([None])
        for n in range(self.nearness.rounds):
            surveys = states | f"Survey {n}" >> beam.Map(self._survey, AsSingleton(plan))
            gathered = surveys | f"Gather {n}" >> beam.combiners.ToList()
            plan |= f"Plan {n}" >> beam.Map(self.nearness.plan, AsSingleton(gathered))
        split = states | "Split" >> beam.FlatMap(
            # Not a generator itself, of which Beam would infer types that tagged outputs do not have.
            lambda state, plan: iter(self._split(state, plan)),
            AsSingleton(plan),
        ).with_outputs("recall", main="parts")
        edges = (
            split.parts
            | "Meet" >> beam.GroupByKey()
            | "Edges" >> beam.Map(lambda item: self.nearness.edges(item[0], join_parts(item[1])))
        )
        groups = edges | "Forest" >> beam.CombineGlobally(_Forest()) | "Groups" >> beam.Map(Groups.of)
        return groups, split.recall | "Recall" >> beam.CombineGlobally(Fold(operator.add))

    def _survey(self, state: UnitState, plan: Any) -> Any:
        return self.nearness.survey(*read_nodes(self.settings, self.nearness, state), plan)

    def _split(self, state: UnitState, plan: Any) -> Iterator[Any]:
        """Yield parts by bucket, and what `recall` says as output `recall`."""
        nodes, values = read_nodes(self.settings, self.nearness, state)
        yield TaggedOutput("recall", self.nearness.recall(nodes, values, plan))
        yield from self.nearness.split(nodes, values, plan, self.n_buckets)


class _Forest(beam.CombineFn):
    """Merge edges into a spanning forest; a worker holds about as many as there are nodes."""

    def create_accumulator(self) -> list[U64]:
        return []

    def add_input(self, accumulator: list[U64], element: U64) -> list[U64]:
        accumulator.append(element)
        # Merged once there are as many new edges as merged ones, so that it costs no more than they do.
        if sum(map(len, accumulator[1:])) > len(accumulator[0]) + (1 << 20):
            return [forest(accumulator)]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[U64]]) -> list[U64]:
        return [forest(part for parts in accumulators for part in parts)]

    def extract_output(self, accumulator: list[U64]) -> U64:
        return forest(accumulator)
