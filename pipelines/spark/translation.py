"""Beam's graph → steps that the driver takes in order; what cannot run on Spark is refused by name, before it runs.

In: the pipeline's proto. Out: `Graph`, steps in topological order: `Impulse`, `Union` (Flatten, and Reshuffle, for
elements are distributed anew at each stage), `Group` (GroupByKey) and `Stage`, what Beam's optimizer fused.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_fn_api_pb2 as fn_api
from apache_beam.portability.api import beam_runner_api_pb2 as proto
from apache_beam.runners.common import ENCODED_IMPULSE_VALUE
from apache_beam.runners.portability.fn_api_runner import translations
from apache_beam.runners.worker import bundle_processor

_PRIMITIVES = common_urns.primitives
_RESHUFFLE = common_urns.composites.RESHUFFLE.urn
_EMPTY = "spark:empty"  # a Flatten of nothing, which no stage can be fused with
_RUNNER_URNS = frozenset(
    [_PRIMITIVES.IMPULSE.urn, _PRIMITIVES.FLATTEN.urn, _PRIMITIVES.GROUP_BY_KEY.urn, _RESHUFFLE, _EMPTY]
)
_BYTES = proto.Coder(spec=proto.FunctionSpec(urn=common_urns.coders.BYTES.urn))
_REFUSED = {
    common_urns.requirements.REQUIRES_STATEFUL_PROCESSING.urn: "state and timers",
    common_urns.requirements.REQUIRES_BUNDLE_FINALIZATION.urn: "bundle finalization",
    common_urns.requirements.REQUIRES_STABLE_INPUT.urn: "stable input",
    common_urns.requirements.REQUIRES_TIME_SORTED_INPUT.urn: "time-sorted input",
}
_ACCEPTED = {common_urns.requirements.REQUIRES_SPLITTABLE_DOFN.urn}
_ENVIRONMENTS = {python_urns.EMBEDDED_PYTHON, "beam:env:default:v1", ""}


@dataclass(frozen=True)
class Impulse:
    """One element, an empty byte string."""

    name: str
    output: str
    element: bytes = ENCODED_IMPULSE_VALUE


@dataclass(frozen=True)
class Union:
    """All elements of some collections, each as it is."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Group:
    """The values of each key and window."""

    name: str
    input: str
    output: str
    coders: bytes  # proto.Components, in which what is length-prefixed is bytes
    input_coder: str
    output_coder: str
    windowing: str


@dataclass(frozen=True)
class Side:
    """A side input of a stage's transform."""

    transform: str
    tag: str
    collection: str
    pattern: bytes  # FunctionSpec
    coders: bytes
    coder: str


@dataclass(frozen=True)
class Stage:
    """DoFns fused into one, as Beam's SDK worker takes them."""

    name: str
    input: str
    descriptor: bytes  # ProcessBundleDescriptor
    read: str  # the transform that takes elements
    writes: dict[str, str]  # the transforms that give them → collections
    sides: tuple[Side, ...]


Step = Impulse | Union | Group | Stage


@dataclass(frozen=True)
class Graph:
    """Steps in order, and how many of them read each collection."""

    steps: tuple[Step, ...]
    readers: Counter[str]


def translate(pipeline: proto.Pipeline) -> Graph:
    """Return the pipeline's steps.

    Raises NotImplementedError where it needs what this runner does not have, all of it named.
    """
    pipeline = copy.deepcopy(pipeline)
    _check(pipeline)
    phases = translations.standard_optimize_phases()
    at = phases.index(translations.expand_sdf) + 1
    optimized = translations.optimize_pipeline(
        pipeline, phases=[*phases[:at], _prepare, *phases[at:]], known_runner_urns=_RUNNER_URNS, partial=False
    )
    builder = _Builder(optimized.components)
    steps = tuple(builder.build(optimized.root_transform_ids))
    return Graph(steps, Counter(name for step in steps for name in read_by(step)))


def read_by(step: Step) -> Iterator[str]:
    """Yield the collections that a step reads, one as often as it reads it."""
    match step:
        case Union():
            yield from step.inputs
        case Group():
            yield step.input
        case Stage():
            yield step.input
            yield from (side.collection for side in step.sides)


def _check(pipeline: proto.Pipeline) -> None:
    components = pipeline.components
    refused = {_REFUSED.get(urn, urn) for urn in pipeline.requirements if urn not in _ACCEPTED}
    for transform in components.transforms.values():
        if transform.spec.urn == _PRIMITIVES.TEST_STREAM.urn:
            refused.add(f"TestStream ({transform.unique_name})")
        if transform.environment_id:
            environment = components.environments[transform.environment_id]
            if environment.urn not in _ENVIRONMENTS:
                refused.add(f"an environment of its own ({transform.unique_name}: {environment.urn})")
        refused |= {
            f"an unbounded collection, as in streaming ({transform.unique_name})"
            for name in transform.outputs.values()
            if not transform.subtransforms and components.pcollections[name].is_bounded == proto.IsBounded.UNBOUNDED
        }
    if refused:
        raise NotImplementedError(f"SparkRunner runs no pipeline with {'; nor with '.join(sorted(refused))}")


def _prepare(stages: Iterable[Any], context: Any) -> Iterator[Any]:
    """Let groups be made without decoding values, and elements go through a Reshuffle as they are."""
    collections = context.components.pcollections
    for stage in stages:
        (transform,) = stage.transforms
        if transform.spec.urn == _PRIMITIVES.GROUP_BY_KEY.urn:
            for name in (*transform.inputs.values(), *transform.outputs.values()):
                context.length_prefix_pcoll_coders(name)
        if transform.spec.urn == _PRIMITIVES.FLATTEN.urn and not transform.inputs:
            transform.spec.urn = _EMPTY
        if transform.spec.urn == _RESHUFFLE and len(transform.inputs) == 1:
            (source,), (output,) = transform.inputs.values(), transform.outputs.values()
            collections[output].coder_id = collections[source].coder_id
            collections[output].windowing_strategy_id = collections[source].windowing_strategy_id
        yield stage


class _Builder:
    def __init__(self, components: proto.Components) -> None:
        self._components = components
        self._windowed: dict[tuple[str, str], str] = {}

    def build(self, names: Iterable[str]) -> Iterator[Step]:
        for name in names:
            transform = self._components.transforms[name]
            if transform.subtransforms:
                yield from self.build(transform.subtransforms)
            elif set(transform.outputs.values()) - set(transform.inputs.values()) or not transform.outputs:
                yield self._step(transform)

    def _step(self, transform: proto.PTransform) -> Step:
        urn, name = transform.spec.urn, transform.unique_name
        if urn == common_urns.executable_stage:
            return self._stage(transform)
        (output,) = transform.outputs.values()
        if urn == _PRIMITIVES.IMPULSE.urn:
            return Impulse(name, output)
        if urn == _PRIMITIVES.GROUP_BY_KEY.urn:
            (source,) = transform.inputs.values()
            before, after = self._windowed_coder(source), self._windowed_coder(output)
            coders, name = self._opaque_coders([before, after]), f"{_say([transform])} (grouped)"
            return Group(name, source, output, coders, before, after, self._windowing(source))
        if urn == _RESHUFFLE:  # of a splittable DoFn: its side inputs are named too
            collections = self._components.pcollections
            coder, names = collections[output].coder_id, transform.inputs.values()
            source = next(source for source in names if collections[source].coder_id == coder)
            return Union(name, (source,), output)
        return Union(name, tuple(transform.inputs.values()), output)

    def _stage(self, transform: proto.PTransform) -> Stage:
        payload = proto.ExecutableStagePayload.FromString(transform.spec.payload)
        numbered = sorted(payload.transforms, key=lambda name: int(name.rpartition("_")[2]))  # as they were fused
        fused = [payload.components.transforms[name] for name in numbered]
        transforms = {step.unique_name: step for step in fused}  # by which counters are reported
        inner = payload.components.transforms
        sides = tuple(self._side(inner[side.transform_id], side.local_name) for side in payload.side_inputs)
        port = self._port(bundle_processor.DATA_INPUT_URN, payload.input)
        transforms["read"] = proto.PTransform(unique_name="read", spec=port, outputs={"out": payload.input})
        writes = {}
        for number, output in enumerate(sorted(payload.outputs)):
            name, port = f"write{number}", self._port(bundle_processor.DATA_OUTPUT_URN, output)
            writes[name] = output
            transforms[name] = proto.PTransform(unique_name=name, spec=port, inputs={"in": output})
        descriptor = fn_api.ProcessBundleDescriptor(
            transforms=transforms,
            pcollections=payload.components.pcollections,
            coders=self._components.coders,
            windowing_strategies=payload.components.windowing_strategies,
            environments=payload.components.environments,
        )
        return Stage(_say(fused), payload.input, descriptor.SerializeToString(), "read", writes, sides)

    def _side(self, transform: proto.PTransform, tag: str) -> Side:
        collection = transform.inputs[tag]
        coder = self._windowed_coder(collection)
        dofn = proto.ParDoPayload.FromString(transform.spec.payload)
        pattern = dofn.side_inputs[tag].access_pattern.SerializeToString()
        return Side(transform.unique_name, tag, collection, pattern, self._opaque_coders([coder]), coder)

    def _port(self, urn: str, collection: str) -> proto.FunctionSpec:
        port = fn_api.RemoteGrpcPort(coder_id=self._windowed_coder(collection))
        return proto.FunctionSpec(urn=urn, payload=port.SerializeToString())

    def _windowing(self, collection: str) -> str:
        name: str = self._components.pcollections[collection].windowing_strategy_id
        return name

    def _windowed_coder(self, collection: str) -> str:
        windowing = self._components.windowing_strategies[self._windowing(collection)]
        key = (self._components.pcollections[collection].coder_id, windowing.window_coder_id)
        if key not in self._windowed:
            self._windowed[key] = f"spark_windowed_{len(self._windowed)}"
            spec = proto.FunctionSpec(urn=common_urns.coders.WINDOWED_VALUE.urn)
            self._components.coders[self._windowed[key]].CopyFrom(proto.Coder(spec=spec, component_coder_ids=list(key)))
        return self._windowed[key]

    def _opaque_coders(self, names: Iterable[str]) -> bytes:
        """Return these coders and all windowings, where what is length-prefixed stays bytes."""
        opaque = proto.Components(
            windowing_strategies=self._components.windowing_strategies, environments=self._components.environments
        )
        windows = [windowing.window_coder_id for windowing in opaque.windowing_strategies.values()]
        waiting = [*names, *windows]
        while waiting:
            name = waiting.pop()
            if name not in opaque.coders:
                coder = self._components.coders[name]
                is_opaque = coder.spec.urn == common_urns.coders.LENGTH_PREFIX.urn
                opaque.coders[name].CopyFrom(_BYTES if is_opaque else coder)
                waiting += opaque.coders[name].component_coder_ids
        data: bytes = opaque.SerializeToString()
        return data


def _say(transforms: Iterable[proto.PTransform]) -> str:
    """Return what users call the fused steps: the first parts of their names, each once.

    A name is a step, perhaps with a detail (`STEP: DETAIL`), or several with semicolons: details of a step are joined.
    """
    steps: dict[str, dict[str, None]] = {}
    for transform in transforms:
        for name in transform.unique_name.split("/")[0].split("; "):
            step, *details = name.split(": ")
            steps.setdefault(step, {}).update(dict.fromkeys(details[:1]))
    return "; ".join(f"{step}: {', '.join(details)}" if details else step for step, details in steps.items())
