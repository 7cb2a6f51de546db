"""Code that runs in an executor's Python: a stage's bundle in Beam's SDK worker, and GroupByKey with a shuffle.

The worker and its DoFns are reused for tasks of the same stage. A task returns one `Result`, which Spark counts once
regardless of retries: outputs, Beam's counters, or an error that no retry would change.

GroupByKey works on encoded key-value elements in windows, and follows the collection's windowing and trigger. The
driver groups small collections; otherwise a shuffle on the key's bytes does. Keys and values are sorted by their bytes,
so the order of values does not depend on the order of fetches. Values are not decoded. A lost part of a shuffle is
recomputed from the output of the previous stage.
"""

import gc
import logging
import os
import struct
import time
import traceback
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from apache_beam.coders import PickleCoder
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2 as fn_api
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.portability.fn_api_runner.execution import WindowGroupingBuffer
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SingletonStateHandlerFactory, StateServicer
from apache_beam.runners.worker import data_plane, sdk_worker
from apache_beam.runners.worker.statesampler import StateSampler
from apache_beam.transforms.trigger import create_trigger_driver
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import PaneInfo, PaneInfoTiming

from pipelines.spark.exchange import Part, Writer
from pipelines.spark.translation import READ, Group, Side, Stage, read_context

_PANE = PaneInfo(is_first=True, is_last=True, timing=PaneInfoTiming.ON_TIME, index=0, nonspeculative_index=0)

Keyed = tuple[bytes, bytes]  # the key's bytes, and the element
CPUS = "SPARK_TASK_CPUS"  # environment variable with the number of cores for DoFns
_DECODED = 100 << 20  # bytes of side inputs that are cached decoded
_SAMPLING_MS = 5  # a bundle's end waits for the thread that samples its time
_CAPABILITIES = frozenset([common_urns.runner_protocols.MULTIMAP_KEYS_VALUES_SIDE_INPUT.urn])


def key_elements(group: Group, parts: Iterable[Part]) -> Iterator[Keyed]:
    """Yield each element after its key."""
    coder = read_context(group.coders).coders.get_by_id(group.input_coder)
    decode, encode = coder.get_impl().decode_nested, coder.key_coder().get_impl().encode
    for part in parts:
        for element in part.read():
            yield encode(decode(element).value[0]), element


def find_partition(keyed: Keyed, partitions: int) -> int:
    """Return the partition of a key; it is the same in every process."""
    return zlib.crc32(keyed[0]) % partitions


def group_sorted(group: Group, keyed: Iterable[Keyed]) -> Iterator[bytes]:
    """Yield the groups of sorted elements, encoded."""
    context = read_context(group.coders)
    coder = context.coders.get_by_id(group.input_coder)
    decode, decode_key = coder.get_impl().decode_nested, coder.key_coder().get_impl().decode
    encode = context.coders.get_by_id(group.output_coder).get_impl().encode_nested
    group_values = _find_grouping(context.windowing_strategies.get_by_id(group.windowing))
    for key, elements in groupby(keyed, key=itemgetter(0)):
        values = (decode(element) for _, element in elements)
        for grouped in group_values(decode_key(key), (value.with_value(value.value[1]) for value in values)):
            yield encode(grouped)


def _find_grouping(windowing: Any) -> Callable[[Any, Iterable[Any]], Iterable[Any]]:
    if not windowing.is_default():
        driver = create_trigger_driver(windowing, True)
        return lambda key, values: driver.process_entire_key(key, list(values))
    window = GlobalWindows.windowed_value(None, timestamp=GlobalWindow().max_timestamp(), pane_info=_PANE)
    return lambda key, values: [window.with_value((key, [value.value for value in values]))]


@dataclass(frozen=True)
class Task:
    """Data that all tasks of a stage share."""

    id: str  # identifies the stage in this run
    stage: Stage
    sides: Sequence[tuple[Side, Any]]  # with their parts, or a broadcast of the parts
    folder: str  # for files
    limit: int  # bytes that a task may return to the driver
    options: dict[str, Any]  # Beam's
    log_level: int  # minimum level of Beam's messages here
    attempts: int  # Spark's limit per task


@dataclass(frozen=True)
class Result:
    """The result of a task."""

    outputs: dict[str, list[Part]] = field(default_factory=dict)  # by collection
    counters: tuple[bytes, ...] = ()  # MonitoringInfos
    error: tuple[bytes | None, str] | None = None  # permanent, or of the last attempt; pickled if possible
    seconds: float = 0.0


def take_resources() -> None:
    """Set this process's environment to its tasks' cores, and to their GPU if Spark assigns one."""
    from pyspark import TaskContext

    context = TaskContext.get()
    os.environ[CPUS] = str(context.cpus())
    if gpus := context.resources().get("gpu"):
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(gpus.addresses))


def run_bundle(task: Task, inputs: Iterable[list[Part]]) -> Iterator[Result]:
    """Yield the result of a stage's task, whose elements are one bundle."""
    for parts in inputs:
        began, writer = time.perf_counter(), Writer(task.folder, task.limit)
        try:
            counters = _find_worker(task).run(parts, writer)
            yield Result(writer.close(), counters, seconds=time.perf_counter() - began)
        except Exception as error:
            writer.abandon()
            if permanent := _find_permanent(error):
                yield Result(error=(_pickle(permanent), f"{type(permanent).__name__}: {permanent}"))
            elif _is_last_attempt(task):  # raising it would end the stage's other tasks
                yield Result(error=(None, "".join(traceback.format_exception(error)).strip()))
            else:
                raise


def reduce_groups(group: Group, folder: str, limit: int, keyed: Iterable[tuple[Keyed, None]]) -> Iterator[Result]:
    """Yield the groups of a partition of sorted elements, as a result."""
    began, writer = time.perf_counter(), Writer(folder, limit)
    for element in group_sorted(group, (pair for pair, _ in keyed)):
        writer.add(group.output, element)
    yield Result(writer.close(), seconds=time.perf_counter() - began)


def _is_last_attempt(task: Task) -> bool:
    from pyspark import TaskContext

    context = TaskContext.get()
    return context is not None and context.attemptNumber() + 1 >= task.attempts


def _find_permanent(error: BaseException | None) -> BaseException | None:
    while error is not None and getattr(error, "permanent", False) is not True:
        # Beam's mark for an error that it could not recreate with the step's name.
        is_text = hasattr(error, "_tagged_with_step")
        error = error.__cause__ or (error.__context__ if is_text else None)
    return error


def _pickle(error: BaseException) -> bytes | None:
    coder = PickleCoder()
    try:
        data: bytes = coder.encode(error)
        return data if str(coder.decode(data)) == str(error) else None
    except Exception:  # from the error's own methods
        return None


class _StageWorker:
    """This process's SDK worker, with the DoFns and side inputs of one stage."""

    def __init__(self, task: Task) -> None:
        StateSampler.__init__.__defaults__ = (_SAMPLING_MS,)
        take_resources()  # before loading any DoFn
        RuntimeValueProvider.set_runtime_options(task.options)
        logging.getLogger("apache_beam").setLevel(task.log_level)
        FileSystems.set_options(PipelineOptions.from_dictionary(task.options))
        gc.unfreeze()
        self.id, self._is_frozen = task.id, False
        self._writes = task.stage.writes
        state, token, self._tokens = StateServicer(), fn_api.ProcessBundleRequest.CacheToken, []
        for side, parts in task.sides:
            _arrange(state, side, getattr(parts, "value", parts))
            side_input = token.SideInput(transform_id=side.transform, side_input_id=side.tag)
            self._tokens.append(token(side_input=side_input, token=task.id.encode()))  # caches decoded values
        handler = sdk_worker.GlobalCachingStateHandler(sdk_worker.StateCache(_DECODED), state)
        descriptor = fn_api.ProcessBundleDescriptor.FromString(task.stage.descriptor)
        descriptor.id = task.id
        self._channel = _Channel()
        states, channels = SingletonStateHandlerFactory(handler), data_plane.InMemoryDataChannelFactory(self._channel)
        self.processors = sdk_worker.BundleProcessorCache(_CAPABILITIES, states, channels, {task.id: descriptor})
        self._worker = sdk_worker.SdkWorker(self.processors)

    def run(self, parts: Iterable[Part], writer: Writer) -> tuple[bytes, ...]:
        """Process the elements as one bundle of the stage, and return Beam's counters."""
        counters = []
        chunks: Iterable[Iterable[bytes]] = (part.read() for part in parts)
        while True:  # again while a splittable DoFn defers work
            bundle = uuid.uuid4().hex
            read = partial(fn_api.Elements.Data, instruction_id=bundle, transform_id=READ)
            self._channel.inputs = (read(data=b"".join(chunk)) for chunk in chunks)
            self._channel.write = lambda transform, element: writer.add(self._writes[transform], element)
            process = fn_api.ProcessBundleRequest(process_bundle_descriptor_id=self.id, cache_tokens=self._tokens)
            request = fn_api.InstructionRequest(instruction_id=bundle, process_bundle=process)
            done = self._worker.do_instruction(request).process_bundle
            counters += [info.SerializeToString() for info in done.monitoring_infos]
            if not done.residual_roots:
                break
            time.sleep(max(root.requested_time_delay.ToSeconds() for root in done.residual_roots))
            chunks = [[root.application.element for root in done.residual_roots]]
        if not self._is_frozen:
            gc.freeze()  # otherwise PySpark's garbage collection after each task scans all imports
            self._is_frozen = True
        return tuple(counters)


_workers: list[_StageWorker] = []  # at most one


def _find_worker(task: Task) -> _StageWorker:
    if not _workers or _workers[0].id != task.id:
        while _workers:
            _workers.pop().processors.shutdown()  # its DoFns end
        _workers.append(_StageWorker(task))
    return _workers[0]


class _Channel(data_plane.InMemoryDataChannel):
    """Passes elements to a worker in this process and back, one by one."""

    inputs: Iterator[fn_api.Elements.Data]  # the bundle's
    write: Callable[[str, bytes], None]  # called with a transform and its output element

    def input_elements(
        self, instruction_id: str, expected_inputs: Any, abort_callback: Any = None
    ) -> Iterator[fn_api.Elements.Data]:
        yield from self.inputs

    def output_stream(self, instruction_id: str, transform_id: str) -> data_plane.ClosableOutputStream:
        """Return a transform's output stream, which passes on each complete element when Beam may flush."""
        write = partial(self.write, transform_id)
        return data_plane.SizeBasedBufferingClosableOutputStream(flush_callback=write, size_flush_threshold=0)


def _arrange(state: StateServicer, side: Side, parts: Iterable[Part]) -> None:
    """Store a side input's encoded values by state key: by window, by window and key, and the list of keys."""
    pattern = proto.FunctionSpec.FromString(side.pattern)
    buffer = WindowGroupingBuffer(pattern, read_context(side.coders).coders.get_by_id(side.coder))
    for part in parts:
        for element in part.read():
            buffer.append(element)

    def add(kind: str, data: bytes, **named: bytes) -> None:
        field = fn_api.StateKey.DESCRIPTOR.fields_by_name[kind].message_type._concrete_class
        side_key = field(transform_id=side.transform, side_input_id=side.tag, **named)
        state.append_raw(fn_api.StateKey(**{kind: side_key}), data)

    for key, window, values, count in buffer.encoded_items():
        if pattern.urn == common_urns.side_inputs.ITERABLE.urn:
            add("iterable_side_input", values, window=window)
        else:
            add("multimap_side_input", values, window=window, key=key)
            add("multimap_keys_side_input", key, window=window)
            add("multimap_keys_values_side_input", key + struct.pack(">i", count) + values, window=window)
