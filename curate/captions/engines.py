"""The engines that a recipe names: opened once per process, shared by threads, checked before the pool is read."""

from collections.abc import Iterator

from curate.captions.prompts import load_template
from curate.captions.regions.regions import Detector, DetectorOptions, ZeroShotDetector
from curate.engines.guided import GuidedEngine, GuidedOptions
from curate.engines.openai import HttpEngine, HttpOptions
from curate.engines.recorded import RecordedEngine, RecordedOptions
from curate.engines.request import Engine
from curate.engines.vllm import VllmEngine
from curate.errors import CurateError
from curate.process import process_cache
from curate.recipe.captions import Captions, Regions
from curate.recipe.engines import EngineSpec


def open_engine(captions: Captions, name: str) -> Engine:
    """The engine of this name. Raises RecipeError where it cannot be what the recipe says."""
    spec = captions.engines[name]
    return process_cache(f"engine {name} {spec.model_dump_json()}", lambda: _open(spec))


def check_engines(captions: Captions, load: bool) -> None:
    """Raises RecipeError or RunError where an engine that is used cannot work: endpoints are asked, models loaded.

    Args:
        captions: the recipe's section.
        load: whether models will run in this process; if not, they are not loaded here.
    """
    for fault in find_faults(captions, load):
        raise fault
    if captions.regions and load:
        open_detector(captions.regions).check()


def find_faults(captions: Captions, load: bool) -> Iterator[CurateError]:
    """What keeps each engine that is used from working, see `check_engines`; the detector is not looked at."""
    for name in dict.fromkeys(task.section.engine for task in captions.tasks):
        spec = captions.engines[name]
        if not load and (spec.vllm or spec.guided):
            continue
        try:
            open_engine(captions, name).check()
        except CurateError as error:
            yield type(error)(f"captions.engines.{name}: {error}")


def identify_engines(captions: Captions) -> dict[str, str]:
    """The model of each engine that is used, and the version of each section's template. Raises RecipeError."""
    found: dict[str, str] = {}
    for _, key, section in captions.tasks:
        try:
            found[section.engine] = open_engine(captions, section.engine).model
        except CurateError as error:
            raise type(error)(f"captions.engines.{section.engine}: {error}") from None
        try:
            found[f"template of {key}"] = load_template(section.default_template, section.template).version
        except CurateError as error:
            raise type(error)(f"captions.{key}.template: {error}") from None
    if captions.regions:
        found["regions"] = open_detector(captions.regions).model
    return found


def open_detector(options: Regions) -> Detector:
    """The detector, once per process."""
    asked = DetectorOptions(options.model, options.device, options.precision, options.batch)
    return process_cache(f"detector {options.model_dump_json()}", lambda: ZeroShotDetector(asked))


def _open(spec: EngineSpec) -> Engine:
    if spec.openai:
        return HttpEngine(HttpOptions(**spec.openai.model_dump()))
    if spec.vllm:
        return VllmEngine(spec.vllm)
    if spec.guided:
        return GuidedEngine(GuidedOptions(**spec.guided.model_dump()))
    assert spec.recorded is not None
    return RecordedEngine(RecordedOptions(**spec.recorded.model_dump()))
