"""A run's Beam options, read once by Beam itself: whatever else depends on them asks what it read, never the words.

In: the file of `--on`, and the words after `--`. Out: Beam's options, and on whose machine and in which process the work is done.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, PortableOptions, StandardOptions

from curate.base.errors import RecipeError
from curate.base.wording import did_you_mean
from pipelines.engine_file import read_engine
from pipelines.spark import SparkRunner  # whose options Beam reads once they are imported
from pipelines.spark.options import SparkOptions

View = TypeVar("View", bound=PipelineOptions)


class _Options(PipelineOptions):
    """Options whose views are made once: Beam asks for two with each transform, and makes a parser of arguments for each.

    A job server says which options it knows (`add_extra_args_fn`), when the job is sent to it. What neither it nor Beam
    knows is an error.
    """

    def get_all_options(self, *switches: Any, add_extra_args_fn: Any = None, **named: Any) -> dict[str, Any]:
        """Return all options by name. Raises RecipeError where one is unknown to a job server too."""
        if add_extra_args_fn and (unknown := _make_parser(add_extra_args_fn).parse_known_args(self._flags)[1]):
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
# Names of runners that are ours; any other is Beam's, or a dotted path.
RUNNERS = {
    "local": "FnApiRunner",
    "spark": "pipelines.spark.SparkRunner",
    "prism": "PrismRunner",
    "dataflow": "DataflowRunner",
}


@dataclass(frozen=True)
class BeamOptions:
    """Options that Beam accepts, and what follows from them."""

    options: PipelineOptions  # for `beam.Pipeline`, which copies them
    is_local_runner: bool  # the runner works on this machine alone
    in_this_process: bool  # the work is done in this process, so what it loads before is there
    runner: str = ""  # the name of its class, or ours

    @property
    def is_here(self) -> bool:
        """Whether the work is done on this machine, by whatever runner."""
        return self.is_local_runner or (self.runner == "spark" and self.options.view_as(SparkOptions).is_here)


def parse_options(words: Sequence[str], on: str | None = None) -> BeamOptions:
    """Read Beam options; without a runner: local, with one worker, whose steps have threads (see `do_in_threads`).

    Args:
        words: as on a command line.
        on: a file of options, see `read_engine`. The words come after it: of an option that has one value, theirs holds.

    Raises:
        RecipeError: Beam cannot read them, does not find the runner, or misses an option that it needs; or an option is
            unknown, and no job server is asked later that could know it.
    """
    parser = _make_parser()
    from_file = {} if on is None else read_engine(on, parser)
    said = f"Beam options {' '.join(words)}"
    where = said if on is None else f"--on {on} and {said}" if words else f"--on {on}"
    given = [*chain(*from_file.values()), *words]
    try:
        unknown = parser.parse_known_args(given)[1]
    except argparse.ArgumentError as error:
        raise RecipeError(f"{said}: {error}") from None
    runner = PipelineOptions(given).view_as(StandardOptions).runner
    if runner is not None and "." not in runner and runner.lower() not in _known_runners():
        is_there = any(word.partition("=")[0] == "--runner" for word in words)
        raise RecipeError(f"{said if is_there else f'--on {on}: runner'}: {_say_unknown_runner(runner)}")
    ours = RUNNERS.get((runner or "local").lower())
    if ours == RUNNERS["local"]:
        # To check the types of our own steps takes a quarter of a second, at each start.
        given = [f"--runner={ours}", "--no_pipeline_type_check", *_without_runner(given)]
    else:
        given = [*_without_runner(given), f"--runner={ours or runner}"]
    options = _Options(given)
    try:  # Beam finds the runner by its short, full or dotted name, and checks what it needs
        trial = beam.Pipeline(options=options)
    except Exception as error:  # the module of a runner may raise anything
        named = f"runner {runner}: " if runner and "." in runner else ""
        raise RecipeError(f"{where}: {named}{error}") from None
    os.rmdir(trial.local_tempdir)
    names = {ancestor.__name__ for ancestor in type(trial.runner).__mro__}
    is_local = not names.isdisjoint(StandardOptions.LOCAL_RUNNERS)
    of_spark = next((word.partition("=")[0] for word in given if word.startswith("--spark_")), None)
    if of_spark and runner is None:
        raise RecipeError(f"{where}: {of_spark} needs runner: spark; found no runner")
    if unknown and (is_local or "PortableRunner" not in names):
        if key := next((key for key in from_file if not set(from_file[key]).isdisjoint(unknown)), None):
            raise RecipeError(f"--on {on}: {key}: unknown option of Beam; {_near(key, '')}accepted: options of Beam")
        raise RecipeError(_say_unknown(words, unknown, "Beam does not know"))
    mode = options.view_as(DirectOptions).direct_running_mode
    if is_local:
        _end_bundles_at_once()
    if is_local and mode != "in_memory":
        _keep_elements_whole()
    runner = "spark" if isinstance(trial.runner, SparkRunner) else type(trial.runner).__name__
    in_threads = options.view_as(PortableOptions).environment_type in (None, "LOOPBACK") and mode != "multi_processing"
    return BeamOptions(options, is_local, is_local and in_threads, runner)


def _without_runner(words: Sequence[str]) -> list[str]:
    """Return the words without those that name a runner."""
    pairs = pairwise(["", *words])
    return [word for before, word in pairs if before != "--runner" and word.partition("=")[0] != "--runner"]


def _known_runners() -> set[str]:
    """Return the names of runners, ours and Beam's, in lower case; Beam takes its own without their last word too."""
    names = [name.lower() for name in StandardOptions.KNOWN_RUNNER_NAMES]
    return {*RUNNERS, *names, *(name.removesuffix("runner") for name in names)}


def _say_unknown_runner(runner: str) -> str:
    names = StandardOptions.KNOWN_RUNNER_NAMES
    hint = did_you_mean(runner, [*RUNNERS, *names])
    return (
        f"no runner {runner!r}; {hint}accepted: {', '.join(RUNNERS)}; a runner of Beam ({', '.join(names)}); "
        "or the dotted path of a class"
    )


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


def _make_parser(add_options: Callable[[Any], None] | None = None) -> argparse.ArgumentParser:
    """Return Beam's parser of all its options, and of those that are added; it raises argparse.ArgumentError.

    Beam itself drops without a word what it does not know.
    """
    parsers: list[argparse.ArgumentParser] = []

    def add(parser: argparse.ArgumentParser) -> None:
        parsers.append(parser)
        if add_options:
            add_options(parser)

    PipelineOptions([]).get_all_options(add_extra_args_fn=add)
    parsers[0].exit_on_error = False
    return parsers[0]


def _say_unknown(words: Sequence[str], unknown: Sequence[str], who: str) -> str:
    hint = _near(unknown[0].lstrip("-").partition("=")[0], "--")
    return f"Beam options {' '.join(words)}: {who} {' '.join(unknown)}{f'; {hint.rstrip()}' if hint else ''}"


def _near(name: str, dashes: str) -> str:
    """Return the nearest option of Beam as a hint."""
    return did_you_mean(f"{dashes}{name}", [f"{dashes}{known}" for known in PipelineOptions([]).get_all_options()])
