"""The engines that a recipe names: opened once per process, shared by threads, checked before the pool is read."""

from curate.caption_sections import SECTIONS, Captions, EngineSpec, Regions
from curate.captions.guided import GuidedEngine, GuidedOptions
from curate.captions.http import HttpEngine, HttpOptions
from curate.captions.in_process import VllmEngine
from curate.captions.prompts import load_template
from curate.captions.recorded import RecordedEngine, RecordedOptions
from curate.captions.regions import Detector, DetectorOptions, ZeroShotDetector
from curate.captions.request import Engine
from curate.errors import CurateError
from curate.once import once


def open_engine(captions: Captions, name: str) -> Engine:
    """The engine of this name. Raises RecipeError where it cannot be what the recipe says."""
    spec = captions.engines[name]
    return once(f"engine {name} {spec.model_dump_json()}", lambda: _open(spec))


def check_engines(captions: Captions, load: bool) -> None:
    """Raises RecipeError or RunError where an engine that is used cannot work: endpoints are asked, models loaded.

    Args:
        captions: the recipe's section.
        load: whether models will run in this process; if not, they are not loaded here.
    """
    for name in dict.fromkeys(kind.engine for kind in captions.kinds.values()):
        spec = captions.engines[name]
        if not load and (spec.vllm or spec.guided):
            continue
        try:
            open_engine(captions, name).check()
        except CurateError as error:
            raise type(error)(f"captions.engines.{name}: {error}") from None
    if captions.regions and load:
        open_detector(captions.regions).check()


def identify_writers(captions: Captions) -> dict[str, str]:
    """The model of each engine that is used, and the version of each kind's template. Raises RecipeError."""
    found: dict[str, str] = {}
    for name, kind in captions.kinds.items():
        try:
            found[kind.engine] = open_engine(captions, kind.engine).model
        except CurateError as error:
            raise type(error)(f"captions.engines.{kind.engine}: {error}") from None
        found[f"template of {SECTIONS[name]}"] = load_template(kind.default_template, kind.template).version
    if captions.regions:
        found["regions"] = open_detector(captions.regions).model
    return found


def open_detector(options: Regions) -> Detector:
    """The detector, once per process."""
    asked = DetectorOptions(options.model, options.device, options.precision, options.batch)
    return once(f"detector {options.model_dump_json()}", lambda: ZeroShotDetector(asked))


def _open(spec: EngineSpec) -> Engine:
    if spec.openai:
        return HttpEngine(HttpOptions(**spec.openai.model_dump()))
    if spec.vllm:
        return VllmEngine(spec.vllm)
    if spec.guided:
        return GuidedEngine(GuidedOptions(**spec.guided.model_dump()))
    assert spec.recorded is not None
    return RecordedEngine(RecordedOptions(**spec.recorded.model_dump()))
