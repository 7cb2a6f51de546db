"""Beam's counters, distributions, gauges and sets, as tasks report them (MonitoringInfos): gathered, and in a line."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby

from apache_beam.metrics import monitoring_infos
from apache_beam.metrics.monitoring_infos import BOUNDED_TRIE_TYPE, LATEST_INT64_TYPE, STRING_SET_TYPE
from apache_beam.portability.api import metrics_pb2


def gather(infos: Iterable[metrics_pb2.MonitoringInfo]) -> list[metrics_pb2.MonitoringInfo]:
    """Return one of each kind, step and name: sums, unions, and the latest of gauges."""
    ordered = sorted(monitoring_infos.consolidate(infos), key=_sort_key)
    return [_merge(list(alike)) for _, alike in groupby(ordered, key=_sort_key)]


def say(infos: Iterable[metrics_pb2.MonitoringInfo]) -> str:
    """Return the users' counters and their sums over steps, as text."""
    total: Counter[str] = Counter()
    for info in infos:
        if info.urn == monitoring_infos.USER_COUNTER_URN:
            total[info.labels[monitoring_infos.NAME_LABEL]] += monitoring_infos.extract_counter_value(info)
    return ", ".join(f"{name} {value:,}" for name, value in sorted(total.items()))


def _sort_key(info: metrics_pb2.MonitoringInfo) -> tuple[str, str, list[tuple[str, str]]]:
    return info.urn, info.type, sorted(info.labels.items())


def _merge(alike: list[metrics_pb2.MonitoringInfo]) -> metrics_pb2.MonitoringInfo:
    """Return one for several that Beam does not consolidate."""
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
