"""What stages took, and what their tasks counted: Beam's counters, distributions, gauges and sets (MonitoringInfos)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from apache_beam.metrics import monitoring_infos
from apache_beam.metrics.monitoring_infos import BOUNDED_TRIE_TYPE, LATEST_INT64_TYPE, STRING_SET_TYPE
from apache_beam.portability.api import metrics_pb2


@dataclass(frozen=True)
class StageCost:
    """What a stage of a job, or a group, took.

    Attributes:
        name: the steps.
        tasks: that it was split into; 0 where the driver did it.
        seconds: of wall.
        seconds_in_bundles: of all its tasks within bundles, added.
        bytes_shuffled: of elements that were brought together by key.
        bytes_given: of elements that it gave to other stages.
    """

    name: str
    tasks: int
    seconds: float
    seconds_in_bundles: float
    bytes_shuffled: int
    bytes_given: int


def gather(infos: Iterable[metrics_pb2.MonitoringInfo]) -> list[metrics_pb2.MonitoringInfo]:
    """Return one of each kind, step and name: sums, unions, and the latest of gauges."""
    by_key = defaultdict(list)
    for info in monitoring_infos.consolidate(infos):
        by_key[monitoring_infos.to_key(info)].append(info)
    return [_merge(alike) for alike in by_key.values()]


def _merge(alike: list[metrics_pb2.MonitoringInfo]) -> metrics_pb2.MonitoringInfo:
    first = alike[0]
    labels = [first.labels.get(name, "") for name in (monitoring_infos.NAMESPACE_LABEL, monitoring_infos.NAME_LABEL)]
    step = first.labels.get(monitoring_infos.PTRANSFORM_LABEL)
    if first.type == STRING_SET_TYPE:
        texts = set().union(*map(monitoring_infos.extract_string_set_value, alike))
        return monitoring_infos.user_set_string(*labels, texts, step)
    if first.type == BOUNDED_TRIE_TYPE:
        trie = monitoring_infos.extract_bounded_trie_value(first)
        for info in alike[1:]:
            trie = trie.combine(monitoring_infos.extract_bounded_trie_value(info))
        return monitoring_infos.user_bounded_trie(*labels, trie, step)
    if first.type == LATEST_INT64_TYPE:
        return max(alike, key=monitoring_infos.extract_gauge_value)
    return first
