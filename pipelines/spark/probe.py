"""Checks the executors before a pipeline runs: their Python, their packages, and what the caller's function checks.

A small job runs as many tasks as Spark runs at a time. Each task compares Python and packages before it loads any code
of the caller.
"""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.spark.context import SparkOptions, open_context
from pipelines.spark.execution import find_python_error

_PATIENCE = 5  # seconds for a master to answer
_ROUNDS = 3  # of tasks, while executors are still starting
_PYTHONS = re.compile(r"worker has different version:? \(?(\d+)(?:\.|, )(\d+)\)? than that in driver:? ([\d.]+)")
_NO_PROGRAM = re.compile(r'Cannot run program "([^"]+)"')
_STOPPED = "stopped SparkContext"  # as after a master refused the application
_RAISED = re.compile(r"[\w.]+(Error|Exception)\b")
_NAMED = "spark.pyspark.python in spark_conf, or PYSPARK_PYTHON, sets the executors' Python"


class ProbeError(RuntimeError):
    """There are no executors, or they cannot run the pipeline's code."""


def probe(
    options: PipelineOptions,
    packages: Mapping[str, str],
    look: Callable[[int], Iterable[str]],
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, list[str]]:
    """Return the faults that `look` finds on executors, each with its hosts; `look` gets the number of its task.

    The SparkContext stays open for the pipeline, and the runner stops it. After an error, this function stops it.

    Args:
        packages: the versions that executors need, by module: its `__version__`.
        report: prints which Spark it is, before waiting for executors.

    Raises:
        ProbeError: an executor has a different Python or package, or cannot start Python, or Spark is missing.
    """
    settings, spark = options.view_as(SparkOptions), None
    _check_master(settings.read_conf().get("spark.master", ""))
    with ExitStack() as failing:
        try:
            spark, is_ours = open_context(settings)
            if is_ours:
                failing.callback(spark.stop)
            page = f"; its page: {spark.uiWebUrl}" if spark.uiWebUrl else ""
            report(f"Spark {spark.version} at {spark.master}{page}")
            visits = _visit_all(spark, packages, look)
        except Exception as error:  # a long error from Java
            text = find_python_error(error)
            if _STOPPED in text or (spark is not None and spark._jsc.sc().isStopped()):
                raise ProbeError(_explain_refusal(settings)) from None
            raise ProbeError(_explain(text)) from None
        if wrong := sorted((host, python, text) for host, python, text, _ in visits if text):
            raise ProbeError("on {}, {}: {}; accepted: the same versions on executors and driver".format(*wrong[0]))
        failing.pop_all()
    hosts: dict[str, set[str]] = {}
    for host, _, _, errors in visits:
        for problem in errors:
            hosts.setdefault(problem, set()).add(host)
    return {problem: sorted(names) for problem, names in hosts.items()}


def _check_master(url: str) -> None:
    """Raise ProbeError if no standalone master in the URL answers; Spark itself would try for a minute."""
    if not url.startswith("spark://"):
        return
    errors = []
    for address in url.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
            return
        except (OSError, OverflowError) as error:
            errors.append(f"{address}: {error}")
    reasons = "; ".join(errors)
    raise ProbeError(f"no master answers at {url} ({reasons}); accepted: spark://HOST:PORT, as on its web page")


def _visit_all(spark: Any, packages: Mapping[str, str], look: Callable[[int], Iterable[str]]) -> list[Any]:
    from pyspark import cloudpickle

    visit = _make_visit(dict(packages), cloudpickle.dumps(look))
    visits: list[Any] = []
    spark.setJobDescription("Probe of executors")
    for _ in range(_ROUNDS):
        tasks = spark.defaultParallelism
        visits = spark.parallelize(range(tasks), tasks).mapPartitions(visit).collect()
        if spark.defaultParallelism <= tasks:
            break
    spark.setJobDescription(None)
    return visits


def _make_visit(packages: dict[str, str], look: bytes) -> Callable[[Iterable[int]], Iterator[Any]]:
    """Return the function for executors. Because it is nested, it is pickled by value, not by this module's name."""

    def visit(numbers: Iterable[int]) -> Iterator[Any]:
        import importlib
        import socket
        import sys

        from pyspark import cloudpickle

        wrong = []
        for name, version in packages.items():
            try:
                installed = getattr(importlib.import_module(name), "__version__", "without a version")
            except ImportError as error:
                cause = f"{type(error).__name__}: {error}"
                wrong.append(f"the executor cannot import {name}, but the driver has {version} ({cause})")
                continue
            if installed != version:
                wrong.append(f"the executor has {name} {installed}, but the driver has {version}")
        errors: Callable[[int], Iterable[str]] | None = None
        if not wrong:
            try:
                from pipelines.spark.bundles import take_resources

                take_resources()
                errors = cloudpickle.loads(look)
            except (ImportError, AttributeError) as error:
                wrong.append(f"{error}: curate's code differs from the driver's, although the version is the same")
        for number in numbers:
            seen = [] if errors is None else list(errors(number))
            yield socket.gethostname(), sys.executable, "; ".join(wrong), seen

    return visit


def _explain_refusal(settings: SparkOptions) -> str:
    import pyspark

    master = settings.read_conf().get("spark.master", "the master")
    remedy = "check that this is the master's port, and that the master runs the same version"
    install = "the master's web page shows both; pip install 'pyspark==VERSION' installs its version here"
    return f"{master} refused an application with Spark {pyspark.__version__}; {remedy} ({install})"


def _explain(error: str) -> str:
    """Return in one line why executors could not run Python."""
    if match := _PYTHONS.search(error):
        python = f"Python {match[1]}.{match[2]} on executors, and {match[3]} on the driver"
        return f"{python}; accepted: the same minor version: {_NAMED}"
    if match := _NO_PROGRAM.search(error):
        return f"executors have no program {match[1]}; accepted: a Python on the executors: {_NAMED}"
    lines = [line for line in error.splitlines() if line.strip()] or [error]
    raised = [line for line in lines if _RAISED.match(line)]
    return (raised[-1] if error.startswith("Traceback") and raised else lines[0]).strip()
