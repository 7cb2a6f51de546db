"""Runs the steps from the driver, one Spark job per stage, and keeps each collection until all readers have read it."""

import logging
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from apache_beam.coders import PickleCoder
from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import metrics_pb2
from apache_beam.runners.common import ENCODED_IMPULSE_VALUE

from pipelines.spark.bundles import Result, Task, find_partition, group_sorted, key_elements, reduce_groups, run_bundle
from pipelines.spark.context import StageCost
from pipelines.spark.exchange import Exchange, Held, Part, spread
from pipelines.spark.translation import Group, Impulse, Side, Stage, Step, Union

_LOGGER = logging.getLogger(__name__)

_TASKS = 64  # maximum per stage, or four per core
_FEW = 2  # per core, because a task costs some 15 ms of CPU; more only if each has this many elements:
_ELEMENTS = 4
_SENT = 64 << 10  # bytes; smaller side inputs are sent with each task, larger ones are broadcast
_LARGEST = 2 << 30  # maximum bytes of a side input
_GROUPED_HERE = (20_000, 16 << 20)  # maximum elements and bytes that the driver groups by itself
_PARTITION = 16 << 20  # bytes per partition of a shuffle


class Cancelled(Exception):
    """The pipeline was canceled."""


class Execution:
    """One run of a pipeline's steps in a SparkContext."""

    def __init__(self, spark: Any, steps: Sequence[Step], exchange: Exchange, options: dict[str, Any]) -> None:
        self._spark, self._steps, self._exchange, self._options = spark, steps, exchange, options
        self._few = _FEW * spark.defaultParallelism
        self._max_tasks = max(_TASKS, 4 * spark.defaultParallelism)
        local = re.fullmatch(r"local(?:\[[^],]*(?:,\s*(\d+))?\])?", spark.master)
        self._attempts = int(local[1] or 1) if local else int(spark.getConf().get("spark.task.maxFailures", "4"))
        self._readers = Counter(name for step in steps for name in step.inputs)  # readers that have not run yet
        self._collections: dict[str, list[Part]] = {}
        self._broadcasts: dict[str, Any] = {}
        self._group = f"beam-{uuid.uuid4().hex}"
        self._is_cancelled = threading.Event()
        self.counters: dict[str, list[metrics_pb2.MonitoringInfo]] = {}  # by step
        self.costs: list[StageCost] = []  # of ended stages

    def cancel(self) -> None:
        self._is_cancelled.set()
        self._spark.cancelJobGroup(self._group)

    def run(self) -> None:
        """Run all steps. Raises a DoFn's permanent error, Cancelled, or RuntimeError for a failed task."""
        try:
            for number, step in enumerate(self._steps):
                if self._is_cancelled.is_set():
                    raise Cancelled
                self._take(f"{self._group}-{number}", step)
                for name in step.inputs:
                    self._readers[name] -= 1
                    if not self._readers[name]:
                        self._drop(name)
        except Exception as error:
            if self._is_cancelled.is_set():
                raise Cancelled from None
            if hasattr(error, "java_exception"):
                raise RuntimeError(find_python_error(error)) from None
            raise
        finally:
            for name in list(self._collections):
                self._drop(name)

    def _take(self, name: str, step: Step) -> None:
        match step:
            case Impulse():
                self._keep({step.output: [Held([ENCODED_IMPULSE_VALUE])]})
            case Union():
                self._keep({step.output: [part for name in step.inputs for part in self._collections[name]]})
            case Group():
                self._keep({step.output: self._group_by_key(step)})
            case Stage():
                self._keep(self._run_stage(name, step))

    def _run_stage(self, name: str, stage: Stage) -> dict[str, list[Part]]:
        outputs: dict[str, list[Part]] = {output: [] for output in stage.writes.values()}
        tasks = self._spread(self._collections[stage.inputs[0]])
        if not tasks:
            return outputs
        sides = [(side, self._send(stage, side)) for side in stage.sides]
        level = logging.getLogger("apache_beam").getEffectiveLevel()
        limit = self._exchange.limit(len(tasks))
        task = Task(name, stage, sides, self._exchange.folder, limit, self._options, level, self._attempts)
        job = self._spark.parallelize(tasks, len(tasks)).mapPartitions(partial(run_bundle, task))
        for result in self._collect(stage.name, job, len(tasks)):
            for output, parts in result.outputs.items():
                outputs[output] += parts
        return outputs

    def _group_by_key(self, group: Group) -> list[Part]:
        parts = self._collections[group.inputs[0]]
        count, size = sum(part.count for part in parts), sum(part.size for part in parts)
        if count <= _GROUPED_HERE[0] and size <= _GROUPED_HERE[1]:
            began = time.perf_counter()
            groups = Held(list(group_sorted(group, sorted(key_elements(group, parts)))))
            self._count(StageCost(group.name, 0, time.perf_counter() - began, 0.0, size, groups.size))
            return [groups]
        tasks = self._spread(parts)
        n = min(self._max_tasks, max(self._spark.defaultParallelism, -(-size // _PARTITION)))
        inputs = self._spark.parallelize(tasks, len(tasks))
        keyed = inputs.flatMap(lambda cut: ((pair, None) for pair in key_elements(group, cut)))
        parted = keyed.repartitionAndSortWithinPartitions(n, partial(find_partition, partitions=n))
        job = parted.mapPartitions(partial(reduce_groups, group, self._exchange.folder, self._exchange.limit(n)))
        results = self._collect(group.name, job, n, size)
        return [part for result in results for part in result.outputs.get(group.output, [])]

    def _spread(self, parts: Sequence[Part]) -> list[list[Part]]:
        return spread(parts, min(self._max_tasks, max(self._few, sum(part.count for part in parts) // _ELEMENTS)))

    def _collect(self, name: str, job: Any, tasks: int, shuffled: int = 0) -> Sequence[Result]:
        began = time.perf_counter()
        self._spark.setJobGroup(self._group, name, interruptOnCancel=False)
        results: list[Result] = job.collect()
        if errors := [result.error for result in results if result.error]:
            raised = [PickleCoder().decode(pickled) if pickled else RuntimeError(text) for pickled, text in errors]
            raise ExceptionGroup(f"{len(raised)} tasks failed: {raised[0]}", raised) if raised[1:] else raised[0]
        infos = [metrics_pb2.MonitoringInfo.FromString(info) for result in results for info in result.counters]
        self.counters[name] = _merge_metrics([*self.counters.get(name, []), *infos])
        seconds, in_bundles = time.perf_counter() - began, sum(result.seconds for result in results)
        size = sum(part.size for result in results for parts in result.outputs.values() for part in parts)
        self._count(StageCost(name, tasks, seconds, in_bundles, shuffled, size))
        return results

    def _count(self, cost: StageCost) -> None:
        self.costs.append(cost)
        _LOGGER.info("%s", cost)

    def _send(self, stage: Stage, side: Side) -> Any:
        parts = self._collections[side.collection]
        size = sum(part.size for part in parts)
        if size > _LARGEST:
            raise ValueError(f"{stage.name}: its side input {side.tag} has {size:,} bytes; accepted: {_LARGEST:,}")
        if size <= _SENT:
            return parts
        if side.collection not in self._broadcasts:
            self._broadcasts[side.collection] = self._spark.broadcast(parts)
        return self._broadcasts[side.collection]

    def _keep(self, outputs: dict[str, list[Part]]) -> None:
        for name, parts in outputs.items():
            if self._readers[name]:
                self._collections[name] = parts
                self._exchange.keep(parts)

    def _drop(self, name: str) -> None:
        self._exchange.drop(self._collections.pop(name))
        if broadcast := self._broadcasts.pop(name, None):
            with suppress(Exception):  # the context may have stopped
                broadcast.destroy()


def _merge_metrics(infos: Sequence[metrics_pb2.MonitoringInfo]) -> list[metrics_pb2.MonitoringInfo]:
    """Return one metric per step and name: sums, and sets and gauges, which Beam's `consolidate` does not merge."""
    merged: dict[Any, metrics_pb2.MonitoringInfo] = {}
    for info in monitoring_infos.consolidate(infos):
        key = monitoring_infos.to_key(info)
        other = merged.setdefault(key, info)
        if other is info:
            continue
        if info.type == monitoring_infos.STRING_SET_TYPE:
            texts = set().union(*map(monitoring_infos.extract_string_set_value, (other, info)))
            other.payload = monitoring_infos.user_set_string("", "", texts).payload
        elif info.type == monitoring_infos.BOUNDED_TRIE_TYPE:
            trie = monitoring_infos.extract_bounded_trie_value(other)
            trie = trie.combine(monitoring_infos.extract_bounded_trie_value(info))
            other.payload = monitoring_infos.user_bounded_trie("", "", trie).payload
        else:
            merged[key] = max(other, info, key=monitoring_infos.extract_gauge_value)
    return list(merged.values())


def find_python_error(error: Exception) -> str:
    """Return the Python traceback in Spark's error, or else its message without Java's stack traces."""
    text = str(getattr(error, "java_exception", error))
    _, begin, after = text.partition("Traceback (most recent call last):")
    return (begin + after if begin else text).split("\n\tat ")[0].split("\n\nDriver stacktrace:")[0].strip()
