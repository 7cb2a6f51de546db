"""Beam's coders and windowings out of the protos that travel with a task, read once a process."""

from functools import lru_cache

from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext


@lru_cache(maxsize=8)
def read_context(components: bytes) -> PipelineContext:
    """Return the context that makes coders and windowings of serialized Components."""
    return PipelineContext(beam_runner_api_pb2.Components.FromString(components))
