"""The SparkContext of a pipeline: made by `SparkOptions` where there is none yet, and what it says of itself."""

import difflib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pipelines.spark.options import SparkOptions

_LOGGER = logging.getLogger(__name__)
_MADE_HERE = "_made_for_beam"  # an attribute of contexts
_SPARK = "org.apache.spark"
# Their logs are Java's traces where a master does not answer: the error is raised too.
_CONNECTING = [f"{_SPARK}.{name}" for name in ("SparkContext", "deploy.client", "network", "scheduler.cluster")]
_LOSING = [f"{_SPARK}.{name}" for name in ("scheduler.TaskSetManager", "executor.Executor")]
# Of what these log, a line: of Python's and Java's traces the last error of Python.
_LINE = (
    r"%d{yy/MM/dd HH:mm:ss} %p %c{1}: %replace{%replace{%m}"
    r"{(?s)org\.apache\.spark\S+ .*\n(\w[\w.]*(Error|Exception): [^\n]*).*}{$1}}{(?s)\n.*}{}%n%ex{0}"
)
# Of `difflib`, from which an unknown setting is taken for a misspelt one: many that work are in no registry.
_NEAR = 0.9
_ELSEWHERE = ("spark.kubernetes.", "spark.yarn.")  # settings whose registries are loaded later


def open_context(settings: SparkOptions) -> tuple[Any, bool]:
    """Return the active SparkContext, else a new one, and whether this made it: then whoever is done with it stops it.

    Settings that seem misspelt are logged.
    """
    from pyspark import SparkConf, SparkContext

    named = settings.read_conf()
    if named.get("spark.master", os.environ.get("SPARK_REMOTE", "")).startswith("sc://"):
        raise NotImplementedError("SparkRunner runs on no Spark Connect session, which has no RDDs; name a master")
    if (active := SparkContext._active_spark_context) is not None:
        return active, getattr(active, _MADE_HERE, False)
    conf = SparkConf()
    for key, value in named.items():
        conf.set(key, value)
    conf.setIfMissing("spark.master", "local[*]")
    conf.setIfMissing("spark.app.name", "beam")
    conf.setIfMissing("spark.ui.showConsoleProgress", "false")
    master = conf.get("spark.master") or ""
    if is_here(master):
        conf.setIfMissing("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")  # half of the JVM's CPU
    if python := conf.get("spark.pyspark.python", ""):  # which only spark-submit would read
        os.environ["PYSPARK_PYTHON"] = python
    elif is_here(master) or master.startswith("spark://"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    interrupt = signal.getsignal(signal.SIGINT)
    SparkContext._ensure_initialized(conf=conf)  # starts Java
    for fault in _find_misspelt(SparkContext._jvm, named):
        _LOGGER.warning("%s", fault)
    with quietly(SparkContext._jvm, _CONNECTING):
        spark = SparkContext(conf=conf)
    setattr(spark, _MADE_HERE, True)
    with suppress(Exception):  # of Java, of many kinds: then traces are logged
        _log_in_lines(SparkContext._jvm, _LOSING)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupt)  # PySpark sets one of its own, which outlives the context
    return spark, True


def is_here(master: str) -> bool:
    """Return whether the executors of a master are on this machine alone."""
    return master.startswith("local")


@contextmanager
def quietly(jvm: Any, loggers: Iterable[str]) -> Iterator[None]:
    """Let these loggers of Java say nothing while the block runs."""
    log4j = jvm.org.apache.logging.log4j
    context = log4j.LogManager.getContext(False)
    configured = context.getConfiguration().getLoggers()
    before = {name: configured[name].getLevel() for name in loggers if name in configured}
    for name in loggers:
        log4j.core.config.Configurator.setLevel(name, log4j.Level.OFF)
    try:
        yield
    finally:
        for name in loggers:
            if name in before:
                log4j.core.config.Configurator.setLevel(name, before[name])
            else:
                context.getConfiguration().removeLogger(name)
        context.updateLoggers()


def _log_in_lines(jvm: Any, loggers: Iterable[str]) -> None:
    """Let these loggers of Java say in a line that a task was lost, and why."""
    log4j = jvm.org.apache.logging.log4j
    core, context = log4j.core, log4j.LogManager.getContext(False)
    builder = core.appender.ConsoleAppender.newBuilder()
    builder.setName("lines")
    builder.setLayout(core.layout.PatternLayout.newBuilder().withPattern(_LINE).build())
    builder.setTarget(getattr(core.appender, "ConsoleAppender$Target").SYSTEM_ERR)
    appender = builder.build()
    appender.start()
    for name in loggers:
        logger = core.config.LoggerConfig(name, log4j.Level.WARN, False)
        logger.addAppender(appender, None, None)
        context.getConfiguration().addLogger(name, logger)
    context.updateLoggers()


def _find_misspelt(jvm: Any, named: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each setting that Spark's registry does not have, but one of nearly the same name."""
    version, known = jvm.org.apache.spark.package.SPARK_VERSION(), _find_known(jvm)
    for key in named:
        if key not in known and not key.startswith(_ELSEWHERE):
            for near in difflib.get_close_matches(key, known, 1, _NEAR):
                yield f"spark_conf: {key}: Spark {version} knows no such setting; did you mean {near!r}?"


def _find_known(jvm: Any) -> list[str]:
    """Return the names of settings in Spark's own registry, which is private to it; none where that cannot be read."""
    config, load = "org.apache.spark.internal.config", jvm.java.lang.Class.forName
    try:
        load(f"{config}.package$")  # fills it
        entries = load(f"{config}.ConfigEntry$")
        registry = entries.getDeclaredField("knownConfigs")
        registry.setAccessible(True)
        names: str = registry.get(entries.getField("MODULE$").get(None)).keySet().toString()
    except Exception:  # of Java, of many kinds
        return []
    return names.strip("[]").split(", ")
