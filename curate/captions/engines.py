"""The engines that a recipe names: opened once per process, shared by threads, checked before the pool is read."""

from collections.abc import Iterator

from curate.base import ids
from curate.base.errors import CurateError
from curate.base.process import process_cache
from curate.captions.regions import ZeroShotDetector, open_detector
from curate.llm.engine import Engine
from curate.recipe.captions import Captions, EngineSpec


def open_engine(spec: EngineSpec, engine_id: str) -> Engine:
    """Return the engine of a recipe; one per process, until its options, what they name or its model (`engine_id`) change."""
    key = ids.digest([spec.options.model_dump(mode="json"), engine_id, spec.options.fingerprint()])
    engine: Engine = process_cache(f"engine {key}", spec.options.open)
    return engine


def find_faults(captions: Captions, engine_ids: dict[str, str], load: bool) -> Iterator[CurateError]:
    """Yield what keeps each engine that is used from working: endpoints are called, models loaded if `load` is set."""
    for name in dict.fromkeys(task.section.engine for task in captions.tasks):
        spec = captions.engines[name]
        if load or not spec.options.is_local:
            try:
                open_engine(spec, engine_ids[name]).check()
            except CurateError as error:
                yield type(error)(f"captions.engines.{name}: {error}")
    if captions.regions and load:
        try:
            open_detector(captions.regions, engine_ids["regions"]).check()
        except CurateError as error:
            yield error


def identify_engines(captions: Captions) -> dict[str, str]:
    """Return the model of each engine that is used, the version of each section's template, and what names a user's examples. Raises RecipeError."""
    found: dict[str, str] = {}
    for task in captions.tasks:
        name = task.section.engine
        try:
            found[name] = captions.engines[name].options.open().model
        except CurateError as error:
            raise type(error)(f"captions.engines.{name}: {error}") from None
        try:
            found[f"template of {task.key}"] = task.section.load_template().version
        except CurateError as error:
            raise type(error)(f"captions.{task.key}.template: {error}") from None
        try:
            if examples := task.section.examples_digest():
                found[f"examples of {task.key}"] = examples
        except CurateError as error:
            raise type(error)(f"captions.{task.key}.examples: {error}") from None
    if captions.regions:
        found["regions"] = ZeroShotDetector(captions.regions).model
    return found
