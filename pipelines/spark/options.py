"""The options of `SparkRunner`, which Beam reads with its own. What Spark's own commands and files say holds too."""

import os
import re
from argparse import ArgumentParser

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SparkRunnerOptions

_MASTERS = r"local(-cluster)?(\[.*\])?|yarn|(k8s|mesos|sc)://.+|spark://[^,/]+:\d+(,[^,/]+:\d+)*"


class SparkOptions(PipelineOptions):
    """How Spark is configured, and where stages leave what the driver does not hold.

    Where Spark is, `--spark_master_url`, is an option of Beam already: local[N], spark://HOST:PORT, yarn or k8s://…
    """

    @classmethod
    def _add_argparse_args(cls, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--spark_conf",
            action="append",
            metavar="KEY=VALUE",
            help="a setting of Spark, such as spark.executor.memory=4g; may be repeated",
        )
        parser.add_argument(
            "--spark_exchange",
            help="a folder or URL that all workers see, for what passes between stages; default: temp_location, "
            "and for a master on this machine the temporary folder",
        )

    def read_conf(self) -> dict[str, str]:
        """Return the named settings of Spark, the master among them. Raises ValueError where one is of no use."""
        conf = {}
        for text in self.spark_conf or ():
            key, equals, value = text.partition("=")
            if not equals or not key.startswith("spark."):
                accepted = "such as spark.executor.memory=4g"
                raise ValueError(f"--spark_conf {text}: not a setting of Spark; accepted: {accepted}")
            conf[key] = value
        gpus, of_task = (float(conf.get(f"spark.{whose}.resource.gpu.amount", 0)) for whose in ("executor", "task"))
        if of_task and gpus > max(1, of_task):  # its processes come and go, and each keeps what its first task had
            accepted = "the same number for both; use more executors for more GPUs"
            what = f"spark.executor.resource.gpu.amount: {gpus:g}, but a task has {of_task:g}"
            raise ValueError(f"{what}; accepted: {accepted}")
        url = self.view_as(SparkRunnerOptions).spark_master_url
        is_named = any(str(word).partition("=")[0] == "--spark_master_url" for word in self._flags or ())
        if is_named or url != SparkRunnerOptions([]).spark_master_url:
            if not re.fullmatch(_MASTERS, url):
                accepted = "local[N], spark://HOST:PORT, yarn or k8s://https://HOST:PORT"
                raise ValueError(f"--spark_master_url {url}: accepted: {accepted}")
            conf["spark.master"] = url
        return conf

    @property
    def is_here(self) -> bool:
        """Whether the master that is named, or the default, is on this machine alone."""
        return self.read_conf().get("spark.master", "local").startswith("local")

    def find_exchange(self) -> str | None:
        """Return the folder or URL for what passes between stages, where one is named."""
        folder: str | None = self.spark_exchange or self.view_as(GoogleCloudOptions).temp_location
        return os.path.abspath(folder) if folder and "://" not in folder else folder
