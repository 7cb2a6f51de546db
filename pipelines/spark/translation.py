"""Translates Beam's graph into steps that the driver runs in order; refuses unsupported features before the run.

In: the pipeline's proto. Out: steps in topological order: `Impulse`, `Union` (Flatten, and Reshuffle, because each
stage distributes its elements anyway), `Group` (GroupByKey), and `Stage`, which Beam's optimizer fused.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_fn_api_pb2 as fn_api
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import translations
from apache_beam.runners.worker import bundle_processor

READ = "read"  # the transform that reads a stage's elements
_URNS = common_urns.primitives
_RESHUFFLE = common_urns.composites.RESHUFFLE.urn
_EMPTY = "spark:empty"  # a Flatten without inputs, which cannot be fused with a stage
_RUNNER_URNS = frozenset([_URNS.IMPULSE.urn, _URNS.FLATTEN.urn, _URNS.GROUP_BY_KEY.urn, _RESHUFFLE, _EMPTY])
_BYTES = proto.Coder(spec=proto.FunctionSpec(urn=common_urns.coders.BYTES.urn))
_REFUSED = {
    common_urns.requirements.REQUIRES_STATEFUL_PROCESSING.urn: "state and timers",
    common_urns.requirements.REQUIRES_BUNDLE_FINALIZATION.urn: "bundle finalization",
    common_urns.requirements.REQUIRES_STABLE_INPUT.urn: "stable input",
    common_urns.requirements.REQUIRES_TIME_SORTED_INPUT.urn: "time-sorted input",
}
_ACCEPTED = {common_urns.requirements.REQUIRES_SPLITTABLE_DOFN.urn}
_ENVIRONMENTS = {python_urns.EMBEDDED_PYTHON, "beam:env:default:v1", ""}


class Impulse(NamedTuple):
    """One element, an empty byte string."""

    output: str
    inputs: tuple[str, ...] = ()


class Union(NamedTuple):
    """All elements of some collections, unchanged."""

    inputs: tuple[str, ...]
    output: str


class Group(NamedTuple):
    """The values of each key and window."""

    name: str
    inputs: tuple[str, ...]  # exactly one
    output: str
    coders: bytes  # for `read_context`
    input_coder: str
    output_coder: str
    windowing: str


class Side(NamedTuple):
    """A side input of a stage's transform."""

    transform: str
    tag: str
    collection: str
    pattern: bytes  # FunctionSpec
    coders: bytes
    coder: str


class Stage(NamedTuple):
    """DoFns fused into one, as Beam's SDK worker takes them."""

    name: str
    inputs: tuple[str, ...]  # the collection of its elements, and those of its side inputs
    descriptor: bytes  # ProcessBundleDescriptor
    writes: dict[str, str]  # transforms that write elements → collections
    sides: tuple[Side, ...]


Step = Impulse | Union | Group | Stage


@lru_cache(maxsize=8)
def read_context(coders: bytes) -> PipelineContext:
    """Return the context that decodes a task's coders and windowings; cached per process."""
    return PipelineContext(proto.Components.FromString(coders))


def translate(pipeline: proto.Pipeline) -> tuple[Step, ...]:
    """Return the pipeline's steps. Raises NotImplementedError with all features that this runner lacks."""
    pipeline = copy.deepcopy(pipeline)
    _check(pipeline)
    phases = translations.standard_optimize_phases()
    phases.insert(phases.index(translations.expand_sdf) + 1, _prepare)
    context, stages = translations.create_and_optimize_stages(pipeline, phases, _RUNNER_URNS)
    return tuple(map(_Builder(context.components, stages).build, stages))


def _check(pipeline: proto.Pipeline) -> None:
    components = pipeline.components
    refused = {_REFUSED.get(urn, urn) for urn in pipeline.requirements if urn not in _ACCEPTED}
    for transform in components.transforms.values():
        if transform.spec.urn == _URNS.TEST_STREAM.urn:
            refused.add(f"TestStream ({transform.unique_name})")
        if transform.environment_id:
            environment = components.environments[transform.environment_id]
            if environment.urn not in _ENVIRONMENTS:
                refused.add(f"a separate environment ({transform.unique_name}: {environment.urn})")
        outputs = [components.pcollections[name] for name in transform.outputs.values()]
        if not transform.subtransforms and any(c.is_bounded == proto.IsBounded.UNBOUNDED for c in outputs):
            refused.add(f"an unbounded collection, as in streaming ({transform.unique_name})")
    if refused:
        raise NotImplementedError(f"SparkRunner does not support {'; '.join(sorted(refused))}")


def _prepare(stages: Iterable[Any], context: Any) -> Iterator[Any]:
    """Make grouping work without decoding values, and Reshuffle pass elements unchanged."""
    collections = context.components.pcollections
    for stage in stages:
        (transform,) = stage.transforms
        if transform.spec.urn == _URNS.GROUP_BY_KEY.urn:
            for name in (*transform.inputs.values(), *transform.outputs.values()):
                context.length_prefix_pcoll_coders(name)
        if transform.spec.urn == _URNS.FLATTEN.urn and not transform.inputs:
            transform.spec.urn = _EMPTY
        if transform.spec.urn == _RESHUFFLE and len(transform.inputs) == 1:
            (source,), (output,) = transform.inputs.values(), transform.outputs.values()
            collections[output].coder_id = collections[source].coder_id
            collections[output].windowing_strategy_id = collections[source].windowing_strategy_id
        yield stage


class _Builder:
    def __init__(self, components: proto.Components, stages: Iterable[translations.Stage]) -> None:
        self._components = components
        self._readers = Counter(name for stage in stages for name in _find_inputs(stage.transforms))
        self._coders = {name: self._windowed_coder(pcoll) for name, pcoll in components.pcollections.items()}
        names = ("coders", "windowing_strategies", "environments")
        self._shared: dict[str, Any] = {name: getattr(components, name) for name in names}
        opaque = proto.Components(**self._shared)
        for coder in opaque.coders.values():  # length-prefixed values stay bytes
            if coder.spec.urn == common_urns.coders.LENGTH_PREFIX.urn:
                coder.CopyFrom(_BYTES)
        self._grouping_coders: bytes = opaque.SerializeToString()

    def build(self, stage: translations.Stage) -> Step:
        """Return the step of a stage: a `Stage` of DoFns, or one transform as `Impulse`, `Group` or `Union`.

        A Reshuffle is a Union of one collection, because each stage distributes its elements anyway.
        """
        transform, collections = stage.transforms[0], self._components.pcollections
        urn, inputs = transform.spec.urn, tuple(transform.inputs.values())
        if len(stage.transforms) > 1 or urn not in _RUNNER_URNS:
            return self._stage(stage.transforms)
        (output,) = transform.outputs.values()
        if urn == _URNS.IMPULSE.urn:
            return Impulse(output)
        if urn == _URNS.GROUP_BY_KEY.urn:
            (source,) = inputs
            name, coders = f"{_say([transform])} (grouped)", (self._coders[source], self._coders[output])
            windowing = collections[source].windowing_strategy_id
            return Group(name, inputs, output, self._grouping_coders, *coders, windowing)
        if urn == _RESHUFFLE:
            # Inside a splittable DoFn it lists side inputs too: the main input is the one with the output's coder.
            inputs = (next(name for name in inputs if collections[name].coder_id == collections[output].coder_id),)
        return Union(inputs, output)  # a Flatten, or the Reshuffle above

    def _stage(self, fused: Sequence[proto.PTransform]) -> Stage:
        sides, main = [], set()
        for transform in fused:
            of_transform = translations.side_inputs(transform)
            main |= {name for tag, name in transform.inputs.items() if tag not in of_transform}
            for tag, name in of_transform.items():
                payload = proto.ParDoPayload.FromString(transform.spec.payload)
                pattern = payload.side_inputs[tag].access_pattern.SerializeToString()
                sides.append(Side(transform.unique_name, tag, name, pattern, self._grouping_coders, self._coders[name]))
        inputs, outputs = _find_inputs(fused), {name for transform in fused for name in transform.outputs.values()}
        (source,) = main - outputs
        written = (name for name in sorted(outputs) if self._readers[name] > (name in inputs))  # another stage reads it
        writes = {f"write{number}": name for number, name in enumerate(written)}
        transforms = {transform.unique_name: transform for transform in fused}  # counters use these names
        port = self._port(bundle_processor.DATA_INPUT_URN, source)
        transforms[READ] = proto.PTransform(unique_name=READ, spec=port, outputs={"out": source})
        for write, name in writes.items():
            port = self._port(bundle_processor.DATA_OUTPUT_URN, name)
            transforms[write] = proto.PTransform(unique_name=write, spec=port, inputs={"in": name})
        descriptor = fn_api.ProcessBundleDescriptor(
            transforms=transforms,
            pcollections={name: self._components.pcollections[name] for name in inputs | outputs},
            **self._shared,
        )
        reads = (source, *(side.collection for side in sides))
        return Stage(_say(fused), reads, descriptor.SerializeToString(), writes, tuple(sides))

    def _port(self, urn: str, collection: str) -> proto.FunctionSpec:
        port = fn_api.RemoteGrpcPort(coder_id=self._coders[collection])
        return proto.FunctionSpec(urn=urn, payload=port.SerializeToString())

    def _windowed_coder(self, collection: proto.PCollection) -> str:
        window = self._components.windowing_strategies[collection.windowing_strategy_id].window_coder_id
        spec = proto.FunctionSpec(urn=common_urns.coders.WINDOWED_VALUE.urn)
        coder = proto.Coder(spec=spec, component_coder_ids=[collection.coder_id, window])
        name = f"{collection.coder_id} in {window}"
        self._components.coders[name].CopyFrom(coder)
        return name


def _find_inputs(transforms: Iterable[proto.PTransform]) -> set[str]:
    return {name for transform in transforms for name in transform.inputs.values()}


def _say(transforms: Iterable[proto.PTransform]) -> str:
    """Return the first parts of the steps' names, without duplicates.

    Details of the same step are joined: `STEP: DETAIL; …`.
    """
    steps: dict[str, dict[str, None]] = {}
    for transform in transforms:
        for name in transform.unique_name.split("/")[0].split("; "):
            step, *details = name.split(": ")
            steps.setdefault(step, {}).update(dict.fromkeys(details[:1]))
    return "; ".join(f"{step}: {', '.join(details)}" if details else step for step, details in steps.items())
