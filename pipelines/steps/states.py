"""Units' states on their way through a shuffle: packets of them, grouped with what was found for their units elsewhere."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from curate.decide.unit_state import UnitState
from pipelines.steps.units import Packet, unpack


def with_states(name: str, states: beam.PCollection[Packet], others: beam.PCollection[Any]) -> beam.PCollection[Any]:
    """Group packets of states and what is for them, by number, as `states_of` reads it; at half the steps of `CoGroupByKey`."""
    return (states, others) | f"{name}: both" >> beam.Flatten() | name >> beam.GroupByKey()


def states_of(item: tuple[int, Iterable[Any]]) -> tuple[list[UnitState], list[Any]]:
    """Return the states of a packet, and what was found for them."""
    values = list(item[1])
    [states] = [value for value in values if isinstance(value, bytes)]
    return unpack((item[0], states)), [value for value in values if not isinstance(value, bytes)]
