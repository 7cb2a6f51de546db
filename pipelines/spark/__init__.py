"""A Beam runner for batch pipelines on PySpark's RDDs: `--runner=pipelines.spark.SparkRunner`; `pip install pyspark`.

Beam's own optimizer fuses the graph (`translation`); what it fused is a stage, one Spark job, whose tasks run Beam's
own SDK worker in the executors' Python (`bundles`). The driver goes from stage to stage (`execution`) and makes the
groups between them, by itself or by a shuffle (`groups`). What a stage gave stays: with the driver where it is small,
else in files (`exchange`). So an ended stage never runs again: a DoFn may draw a random key, and Spark's lineage would
have it draw another. `probe` asks executors before a pipeline whether they can run it.

Nothing here knows what the pipelines do.
"""

from pipelines.spark.runner import SparkRunner

__all__ = ["SparkRunner"]
