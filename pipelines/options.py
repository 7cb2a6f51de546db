"""A run's Beam options, read once by Beam itself: whatever else depends on them asks what it read, never the words.

In: the words after `--`. Out: Beam's options, and on whose machine and in which process the work is done.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from curate.errors import RecipeError, needing
from curate.wording import did_you_mean
from pipelines.spark import SparkRunner  # whose options Beam reads once they are imported

View = TypeVar("View", bound=PipelineOptions)


class _Options(PipelineOptions):
    """Options whose views are made once: Beam asks for two with each transform, and makes a parser of arguments for each.

    A job server says which options it knows (`add_extra_args_fn`), when the job is sent to it. What neither it nor Beam
    knows is an error.
    """

    def get_all_options(self, *switches: Any, add_extra_args_fn: Any = None, **named: Any) -> dict[str, Any]:
        """Return all options by name. Raises RecipeError where one is unknown to a job server too."""
        if add_extra_args_fn and (unknown := _find_unknown(self._flags, add_extra_args_fn)):
            raise RecipeError(_say_unknown(self._flags, unknown, "neither Beam nor the job server knows"))
        found: dict[str, Any] = super().get_all_options(*switches, add_extra_args_fn=add_extra_args_fn, **named)
        return found

    def view_as(self, cls: type[View]) -> View:
        """Return the options as another class has them; all views share their values."""
        views: dict[type[PipelineOptions], Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        found: View = views[cls]
        return found


_SAMPLING_MS = 5
_OURS = {"spark": "pipelines.spark.SparkRunner"}  # names that mean something else to Beam, or nothing


@dataclass(frozen=True)
class BeamOptions:
    """Options that Beam accepts, and what follows from them."""

    options: PipelineOptions  # for `beam.Pipeline`, which copies them
    is_local_runner: bool  # the runner works on this machine alone
    in_this_process: bool  # the work is done in this process, so what it loads before is there
    runner: str = ""  # the name of its class, or ours

    def check_packages(self) -> None:
        """Raise RecipeError where a package is missing without which the runner cannot take a job."""
        if self.runner == "DataflowRunner":
            with needing("Dataflow needs further packages", "'curate[gcp]'"):
                from apache_beam.runners.dataflow.internal.apiclient import DataflowApplicationClient  # noqa: F401
        if self.runner == "spark":
            with needing("Spark needs a further package", "'curate[spark]'"):
                import pyspark  # noqa: F401


def parse_options(words: Sequence[str]) -> BeamOptions:
    """Read Beam options; without a runner: local, with one worker, whose steps have threads (see `MapInThreads`).

    Raises:
        RecipeError: Beam cannot read them, does not find the runner, or misses an option that it needs; or an option is
            unknown, and no job server is asked later that could know it.
    """
    said = f"Beam options {' '.join(words)}"
    words = _name_runner(words)
    try:
        unknown = _find_unknown(words)
    except argparse.ArgumentError as error:
        raise RecipeError(f"{said}: {error}") from None
    options = _Options(list(words))
    if options.view_as(StandardOptions).runner is None:
        # To check the types of our own steps takes a quarter of a second, at each start.
        options = _Options(["--runner=FnApiRunner", "--no_pipeline_type_check", *words])
    try:  # Beam finds the runner by its short, full or dotted name, and checks what it needs
        trial = beam.Pipeline(options=options)
    except Exception as error:  # the module of a runner may raise anything
        raise RecipeError(f"{said}: {error}") from None
    os.rmdir(trial.local_tempdir)
    names = {ancestor.__name__ for ancestor in type(trial.runner).__mro__}
    is_local = not names.isdisjoint(StandardOptions.LOCAL_RUNNERS)
    if unknown and (is_local or "PortableRunner" not in names):
        raise RecipeError(_say_unknown(words, unknown, "Beam knows no"))
    mode = options.view_as(DirectOptions).direct_running_mode
    if is_local:
        _end_bundles_at_once()
    if is_local and mode != "in_memory":
        _keep_elements_whole()
    runner = "spark" if isinstance(trial.runner, SparkRunner) else type(trial.runner).__name__
    return BeamOptions(options, is_local, is_local and mode != "multi_processing", runner)


def _name_runner(words: Sequence[str]) -> list[str]:
    """Return the words where the names of our own runners are those that Beam finds."""
    named = [f"--runner={_OURS.get(word[9:], word[9:])}" if word.startswith("--runner=") else word for word in words]
    return [_OURS.get(word, word) if before == "--runner" else word for before, word in pairwise(["", *named])]


def _end_bundles_at_once() -> None:
    """Let a bundle of Beam's local runner end once its work has.

    A thread samples where its time goes, which nobody reads here, and the bundle waits until it wakes: after 200 ms at most,
    with no work done meanwhile, in each of some forty stages.
    """
    from apache_beam.runners.worker.statesampler import StateSampler

    StateSampler.__init__.__defaults__ = (_SAMPLING_MS,)


def _keep_elements_whole() -> None:
    """Let Beam's local runner send what its workers write once elements are complete, and not once a second besides.

    What it sends then may end within an element, and what is written meanwhile is lost. A reader takes the rest for an
    element: mostly it fails, but it may be a wrong element, or 2³¹ windows, which are 17 GB (apache/beam issue 21104).
    In memory, the default, nothing is sent by time.
    """
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


def _find_unknown(words: Sequence[str], add_options: Callable[[Any], None] | None = None) -> list[str]:
    """Return the words that no option takes, neither of Beam nor one that is added; Beam itself drops them without a word.

    Raises argparse.ArgumentError.
    """
    parsers: list[argparse.ArgumentParser] = []  # Beam's own, of all its options

    def add(parser: argparse.ArgumentParser) -> None:
        parsers.append(parser)
        if add_options:
            add_options(parser)

    PipelineOptions([]).get_all_options(add_extra_args_fn=add)
    parsers[0].exit_on_error = False
    return parsers[0].parse_known_args(words)[1]


def _say_unknown(words: Sequence[str], unknown: Sequence[str], who: str) -> str:
    known = [f"--{name}" for name in PipelineOptions([]).get_all_options()]
    hint = did_you_mean(f"--{unknown[0].lstrip('-').partition('=')[0]}", known)
    return f"Beam options {' '.join(words)}: {who} {' '.join(unknown)}{f'; {hint.rstrip()}' if hint else ''}"
