"""Side inputs on executors: Beam's SDK worker asks for them by its state API, by window, of multimaps by key too.

They come with the task (a Spark broadcast, or files of the exchange), and are arranged once a stage, in a process.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2 as fn_api
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.portability.fn_api_runner.execution import WindowGroupingBuffer
from apache_beam.runners.worker import sdk_worker

from pipelines.spark.coders import read_context
from pipelines.spark.exchange import Part
from pipelines.spark.translation import Side

CAPABILITIES = frozenset([common_urns.runner_protocols.MULTIMAP_KEYS_VALUES_SIDE_INPUT.urn])


class SideInputs(sdk_worker.StateHandler, sdk_worker.StateHandlerFactory):
    """The side inputs of the stage that a process works on."""

    def __init__(self) -> None:
        self._cache = sdk_worker.StateCache(100 << 20)
        self._handler = sdk_worker.GlobalCachingStateHandler(self._cache, self)
        self._sides: dict[tuple[str, str], tuple[Side, Iterable[Part]]] = {}
        self._arranged: dict[tuple[str, str], dict[bytes, bytes]] = {}

    def take(self, sides: Iterable[tuple[Side, Iterable[Part]]]) -> None:
        """Take a stage's side inputs, in place of those of the stage before."""
        self._cache.invalidate_all()
        self._sides = {(side.transform, side.tag): (side, parts) for side, parts in sides}
        self._arranged = {}

    def create_state_handler(self, api_service_descriptor: Any) -> sdk_worker.CachingStateHandler:
        """Return what decodes them, and keeps what it decoded."""
        return self._handler

    def tokens(self, stage: str) -> list[fn_api.ProcessBundleRequest.CacheToken]:
        """Return what lets the decoded stay for all bundles of a stage."""
        token = fn_api.ProcessBundleRequest.CacheToken
        names = [token.SideInput(transform_id=transform, side_input_id=tag) for transform, tag in self._sides]
        return [token(side_input=name, token=stage.encode()) for name in names]

    def get_raw(
        self, state_key: fn_api.StateKey, continuation_token: bytes | None = None
    ) -> tuple[bytes, bytes | None]:
        """Return the encoded values of a key, all at once."""
        side = getattr(state_key, state_key.WhichOneof("type"))
        name = (side.transform_id, side.side_input_id)
        if name not in self._arranged:
            self._arranged[name] = _arrange(*self._sides[name])
        return self._arranged[name].get(state_key.SerializeToString(deterministic=True), b""), None

    def append_raw(self, state_key: fn_api.StateKey, data: bytes) -> Any:
        """Raise: nobody writes state here."""
        raise NotImplementedError("SparkRunner has no user state")

    def clear(self, state_key: fn_api.StateKey) -> Any:
        """Raise: nobody writes state here."""
        raise NotImplementedError("SparkRunner has no user state")

    @contextmanager
    def process_instruction_id(self, bundle_id: str) -> Iterator[None]:
        """Do nothing: what a process works on is one bundle."""
        yield

    def done(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _arrange(side: Side, parts: Iterable[Part]) -> dict[bytes, bytes]:
    """Return the encoded values by state key: of a window, of a window and key, all keys, keys with their values."""
    pattern = proto.FunctionSpec.FromString(side.pattern)
    buffer = WindowGroupingBuffer(pattern, read_context(side.coders).coders.get_by_id(side.coder))
    for part in parts:
        for element in part.read():
            buffer.append(element)
    by_key: defaultdict[bytes, list[bytes]] = defaultdict(list)

    def add(kind: str, data: bytes, **named: bytes) -> None:
        field = fn_api.StateKey.DESCRIPTOR.fields_by_name[kind].message_type._concrete_class
        state_key = fn_api.StateKey(**{kind: field(transform_id=side.transform, side_input_id=side.tag, **named)})
        by_key[state_key.SerializeToString(deterministic=True)].append(data)

    for key, window, values, count in buffer.encoded_items():
        if pattern.urn == common_urns.side_inputs.ITERABLE.urn:
            add("iterable_side_input", values, window=window)
        else:
            add("multimap_side_input", values, window=window, key=key)
            add("multimap_keys_side_input", key, window=window)
            add("multimap_keys_values_side_input", key + struct.pack(">i", count) + values, window=window)
    return {key: b"".join(values) for key, values in by_key.items()}
