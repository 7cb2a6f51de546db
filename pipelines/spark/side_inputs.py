"""Side inputs on executors: Beam's SDK worker asks for them by its state API, by window, of multimaps by key too.

They come with the task (a Spark broadcast, or files of the exchange), and are arranged once a stage, in a process.
"""

import struct
from collections.abc import Iterable
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2 as fn_api
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.portability.fn_api_runner.execution import WindowGroupingBuffer
from apache_beam.runners.portability.fn_api_runner.worker_handlers import StateServicer
from apache_beam.runners.worker import sdk_worker

from pipelines.spark.exchange import Part
from pipelines.spark.translation import Side, read_context

CAPABILITIES = frozenset([common_urns.runner_protocols.MULTIMAP_KEYS_VALUES_SIDE_INPUT.urn])


class SideInputs(StateServicer, sdk_worker.StateHandlerFactory):
    """The side inputs of the stage that a process works on, as state of Beam's local runner."""

    def __init__(self) -> None:
        super().__init__()
        self._cache = sdk_worker.StateCache(100 << 20)
        self._handler = sdk_worker.GlobalCachingStateHandler(self._cache, self)
        self._sides: list[Side] = []

    def take(self, sides: Iterable[tuple[Side, Iterable[Part]]]) -> None:
        """Take a stage's side inputs, in place of those of the stage before."""
        self._cache.invalidate_all()
        super().__init__()  # which holds nothing
        self._sides = []
        for side, parts in sides:
            self._sides.append(side)
            self._arrange(side, parts)

    def create_state_handler(self, api_service_descriptor: Any) -> sdk_worker.CachingStateHandler:
        """Return what decodes them, and keeps what it decoded."""
        return self._handler

    def tokens(self, stage: str) -> list[fn_api.ProcessBundleRequest.CacheToken]:
        """Return what lets the decoded stay for all bundles of a stage."""
        token = fn_api.ProcessBundleRequest.CacheToken
        names = [token.SideInput(transform_id=side.transform, side_input_id=side.tag) for side in self._sides]
        return [token(side_input=name, token=stage.encode()) for name in names]

    def close(self) -> None:
        """Do nothing."""

    def _arrange(self, side: Side, parts: Iterable[Part]) -> None:
        """Keep the encoded values by state key: of a window, of a window and key, all keys, keys with their values."""
        pattern = proto.FunctionSpec.FromString(side.pattern)
        buffer = WindowGroupingBuffer(pattern, read_context(side.coders).coders.get_by_id(side.coder))
        for part in parts:
            for element in part.read():
                buffer.append(element)

        def add(kind: str, data: bytes, **named: bytes) -> None:
            field = fn_api.StateKey.DESCRIPTOR.fields_by_name[kind].message_type._concrete_class
            side_key = field(transform_id=side.transform, side_input_id=side.tag, **named)
            self.append_raw(fn_api.StateKey(**{kind: side_key}), data)

        for key, window, values, count in buffer.encoded_items():
            if pattern.urn == common_urns.side_inputs.ITERABLE.urn:
                add("iterable_side_input", values, window=window)
            else:
                add("multimap_side_input", values, window=window, key=key)
                add("multimap_keys_side_input", key, window=window)
                add("multimap_keys_values_side_input", key + struct.pack(">i", count) + values, window=window)
