"""A Beam runner for batch pipelines on PySpark's RDDs: `--runner=pipelines.spark.SparkRunner`; `pip install pyspark`.

Beam's own optimizer fuses the graph into stages (`translation`). Each stage is a Spark job, whose tasks run Beam's SDK
worker in the executors' Python (`bundles`). The driver runs the stages in order (`execution`), and groups by key
between them, by itself or with a shuffle. A stage's output is kept: in the driver if it is small, otherwise in files
(`exchange`). So a finished stage never runs again: a DoFn may draw a random key, and a rerun by Spark's lineage would
draw another one. `probe` checks the executors before a pipeline.

Nothing in this package depends on what the pipelines do.
"""

from pipelines.spark.runner import SparkRunner

__all__ = ["SparkRunner"]
