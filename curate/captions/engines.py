"""Opens a recipe's engines once per process, shared by threads, and checks them before the pool is read."""

from collections.abc import Iterator

from curate.base import ids
from curate.base.errors import CurateError, naming
from curate.base.process import process_cache
from curate.captions.regions import ZeroShotDetector, open_detector
from curate.llm.engine import Engine
from curate.recipe.captions import Captions, EngineSpec


def open_engine(spec: EngineSpec, engine_id: str) -> Engine:
    """Return a recipe's engine. A process opens it again only if its options, their files, or its model change."""
    key = ids.digest([spec.section.model_dump(mode="json"), engine_id, spec.section.fingerprint()])
    engine: Engine = process_cache(f"engine {key}", spec.section.open)
    return engine


def find_faults(captions: Captions, engine_ids: dict[str, str], load: bool) -> Iterator[CurateError]:
    """Yield the error of each engine that would not work. Calls endpoints; loads models only if `load` is set."""
    for name in dict.fromkeys(task.section.engine for task in captions.requested):
        spec = captions.engines[name]
        if load or not spec.section.is_local:
            try:
                with naming(f"captions.engines.{name}"):
                    open_engine(spec, engine_ids[name]).check()
            except CurateError as error:
                yield error
    if captions.regions and load:
        try:
            open_detector(captions.regions, engine_ids["regions"]).check()
        except CurateError as error:
            yield error


def identify_engines(captions: Captions) -> dict[str, str]:
    """Return each used engine's model, and each section's template version and examples' digest. Raises RecipeError."""
    engine_ids: dict[str, str] = {}
    for task in captions.requested:
        name = task.section.engine
        with naming(f"captions.engines.{name}"):
            engine_ids[name] = captions.engines[name].section.open().model
        with naming(f"captions.{task.name}.template"):
            engine_ids[f"template of {task.name}"] = task.section.load_template().version
        with naming(f"captions.{task.name}.examples"):
            if examples := task.section.examples_digest():
                engine_ids[f"examples of {task.name}"] = examples
    if captions.regions:
        engine_ids["regions"] = ZeroShotDetector(captions.regions).model
    return engine_ids
