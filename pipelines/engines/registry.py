"""The engines: `runner: KEY` in a file of --on, and after `--`.

A new one is a line here, or of a package: see `base`.
"""

from curate.base.registry import Registry
from pipelines.engines.base import PipelineEngine
from pipelines.engines.dataflow import Dataflow
from pipelines.engines.local import Local
from pipelines.engines.prism import Prism
from pipelines.engines.spark import Spark

KINDS: tuple[type[PipelineEngine], ...] = (Local, Spark, Prism, Dataflow)
ENGINES: Registry[type[PipelineEngine]] = Registry("engine", f"{__name__}:KINDS", "curate.engines")
