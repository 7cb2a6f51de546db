"""Which engine a run is on, and with which options: read once by Beam itself, so that nobody else looks at the words.

In: the file of `--on`, and the words after `--`. Out: the engine.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner

from curate.base.errors import RecipeError
from curate.base.wording import did_you_mean
from pipelines.engines.base import PipelineEngine
from pipelines.engines.beam import Beam
from pipelines.engines.file import read_engine
from pipelines.engines.local import Local
from pipelines.engines.options import Options, find_near, make_parser, say_unknown
from pipelines.engines.registry import ENGINES


@dataclass(frozen=True)
class _Words:
    """What a user says of the engine."""

    file: str | None  # of --on
    from_file: dict[str, list[str]]  # words by option
    words: Sequence[str]  # after `--`

    @property
    def all(self) -> list[str]:
        """Return all words; of an option that has one value, the last one holds."""
        return [*chain(*self.from_file.values()), *self.words]

    @property
    def command(self) -> str:
        """Return what messages about the command line begin with."""
        return f"Beam options {' '.join(self.words)}"

    @property
    def where(self) -> str:
        """Return what messages about all of it begin with."""
        if self.file is None:
            return self.command
        return f"--on {self.file} and {self.command}" if self.words else f"--on {self.file}"


def choose_engine(words: Sequence[str], on: str | None = None) -> PipelineEngine:
    """Return the engine that is named, with its options; without one: local, with one worker, whose steps have threads.

    Args:
        words: Beam's options, as on a command line.
        on: a file of options, see `read_engine`. The words come after it.

    Raises:
        RecipeError: Beam cannot read them, does not find the runner, or misses an option that it needs; or an option is
            unknown, and no job server is asked later that could know it.
    """
    engines = ENGINES.kinds()  # first, for their options become Beam's
    parser = make_parser()
    named = _Words(on, {} if on is None else read_engine(on, parser), words)
    try:
        unknown = parser.parse_known_args(named.all)[1]
    except argparse.ArgumentError as error:
        raise RecipeError(f"{named.command}: {error}") from None
    runner = PipelineOptions(named.all).view_as(StandardOptions).runner
    kind = engines.get((Local.key if runner is None else runner).lower())
    if kind is None:
        _check_runner(runner, named)
    elif runner is None:
        _check_options_of_others(named)
    first = [f"--runner={kind.runner}", *kind.defaults] if kind else [f"--runner={runner}"]
    options = Options([*first, *_without_runner(named.all)])
    trial = _try(options, runner, named.where)
    kind = kind or next((kind for kind in engines.values() if kind.takes(trial)), Beam)
    engine = kind(options, trial)
    if unknown and not engine.may_know_more:
        from_file = (key for key, words in named.from_file.items() if not set(words).isdisjoint(unknown))
        if key := next(from_file, None):
            raise RecipeError(
                f"--on {on}: {key}: unknown option of Beam; {find_near(key, '')}accepted: options of Beam"
            )
        raise RecipeError(say_unknown(words, unknown, "Beam does not know"))
    engine.set_up()
    return engine


def _try(options: PipelineOptions, runner: str | None, where: str) -> PipelineRunner:
    """Return the runner that Beam finds, by its short, full or dotted name, once Beam has checked what it needs."""
    try:
        trial = beam.Pipeline(options=options)
    except Exception as error:  # the module of a runner may raise anything
        name = f"runner {runner}: " if runner and "." in runner else ""
        raise RecipeError(f"{where}: {name}{error}") from None
    os.rmdir(trial.local_tempdir)
    return trial.runner


def _without_runner(words: Sequence[str]) -> list[str]:
    """Return the words without those that name a runner."""
    pairs = pairwise(["", *words])
    return [word for before, word in pairs if before != "--runner" and word.partition("=")[0] != "--runner"]


def _check_runner(runner: str, named: _Words) -> None:
    """Raise RecipeError where Beam has no such runner; it takes its own without their last word too."""
    names = StandardOptions.KNOWN_RUNNER_NAMES
    lower = [name.lower() for name in names]
    if "." in runner or runner.lower() in (*lower, *(name.removesuffix("runner") for name in lower)):
        return
    engines = ENGINES.kinds()
    is_of_words = any(word.partition("=")[0] == "--runner" for word in named.words)
    raise RecipeError(
        f"{named.command if is_of_words else f'--on {named.file}: runner'}: no runner {runner!r}; "
        f"{did_you_mean(runner, [*engines, *names])}accepted: {', '.join(engines)}; "
        f"a runner of Beam ({', '.join(names)}); or the dotted path of a class"
    )


def _check_options_of_others(named: _Words) -> None:
    """Raise RecipeError where no runner is named, and an option of one that is none of Beam's local runner."""
    for word in named.all:
        for key in ENGINES.kinds():
            if key != Local.key and word.startswith(f"--{key}_"):
                option = word.partition("=")[0]
                raise RecipeError(f"{named.where}: {option} needs runner: {key}; found no runner")
