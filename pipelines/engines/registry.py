"""The engines: `runner: KEY` in a file of --on, and after `--`. A new one is one line here, or of a package (see `base`)."""

from curate.base.registry import Registry
from pipelines.engines.base import Engine
from pipelines.engines.beam import Dataflow
from pipelines.engines.local import Local
from pipelines.engines.prism import Prism
from pipelines.engines.spark import Spark

KINDS: tuple[type[Engine], ...] = (Local, Spark, Prism, Dataflow)
ENGINES: Registry[type[Engine]] = Registry("engine", f"{__name__}:KINDS", "curate.engines")
