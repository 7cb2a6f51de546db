"""Chooses the engine of a run and parses its options with Beam's own parser.

In: the file of `--on`, a YAML mapping of Beam options, and the words after `--`. Out: the engine. In the file, a list
repeats an option, a mapping repeats it as key=value (`spark_conf`) or is one JSON text, and a boolean is a flag.
Options that Beam does not know are errors.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, product
from typing import Any, TypeVar, cast

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner

from curate.base.errors import RecipeError, reraised
from curate.base.wording import did_you_mean
from curate.pool.plan import Unit
from curate.recipe.errors import shorten
from curate.recipe.files import read_mapping
from curate.run.context import RunContext
from pipelines.engines.base import PipelineEngine, Report, ancestors
from pipelines.engines.local import Local
from pipelines.engines.registry import ENGINES

View = TypeVar("View", bound=PipelineOptions)
_ACCEPTED = "a YAML mapping of Beam options, such as runner: spark; `curate init --on ENGINE` writes one"


class Beam(PipelineEngine):
    """A runner without an engine of its own. Its workers are assumed to be other machines."""

    key = "beam"

    def __init__(self, options: PipelineOptions, runner: PipelineRunner) -> None:
        super().__init__(options, runner)
        self.may_know_more = "PortableRunner" in ancestors(runner)  # its job server

    def check_workers(self, context: RunContext, units: Sequence[Unit], report: Report) -> None:
        """Report the runner and its address."""
        server = self.options.view_as(PortableOptions).job_endpoint
        report(f"{self.name}{f' at {server}' if server else ''}")


def choose_engine(words: Sequence[str], on: str | None = None, out: str | None = None) -> PipelineEngine:
    """Return the requested engine with its options. The default is local, with one worker and threads in its steps.

    Args:
        words: Beam options, as on a command line.
        on: a file of options, which the words override.
        out: the run folder, where an engine may put temporary files.

    Raises:
        RecipeError: Beam cannot parse the options or find the runner; a required option is missing; or Beam does not
            know an option, and the runner has no job server that may know it.
    """
    engines = ENGINES.kinds()  # first, because this registers their options with Beam
    parser, command = _make_parser(), f"Beam options {' '.join(words)}"
    groups = (_read_file(on, parser) if on is not None else {}) | {command: list(words)}  # by source
    every = list(chain(*groups.values()))  # the last value of an option wins
    unknown = {where: unread for where, group in groups.items() if (unread := _find_unknown(parser, group, where))}
    runner = PipelineOptions(every).view_as(StandardOptions).runner
    name = (Local.key if runner is None else runner).lower()
    beams = name.rpartition(".")[2] if name.startswith("apache_beam.") else name  # the class name of Beam's own runner
    kind = engines.get(name) or next((kind for kind in engines.values() if kind.runner.lower() == beams), None)
    where = command if on is None else f"--on {on} and {command}" if words else f"--on {on}"
    if kind is None:
        is_of_words = any(word.partition("=")[0] == "--runner" for word in words)
        _check_runner(runner, command if is_of_words else f"--on {on}: runner")
    elif runner is None:
        for word, key in product(every, engines):
            if key != Local.key and word.startswith(f"--{key}_"):
                raise RecipeError(f"{where}: {word.partition('=')[0]} needs runner: {key}, but no runner is set")
    options = _Options([*(kind.defaults if kind else ()), *every, f"--runner={kind.runner if kind else runner}"])
    subject = f"{where}: runner {runner}" if runner and "." in runner else where
    with reraised(RecipeError, subject, ImportError, AttributeError, ValueError, TypeError, RecipeError):
        beam_runner = (kind or Beam).find_runner(options, out)
    kind = kind or next((kind for kind in engines.values() if kind.takes(beam_runner)), Beam)
    engine = kind(options, beam_runner)
    for where, unread in unknown.items() if not engine.may_know_more else ():
        dashes = "--" if where == command else ""
        names = [f"{dashes}{option}" for option in PipelineOptions([]).get_all_options()]
        hint = did_you_mean(f"{dashes}{unread[0].lstrip('-').partition('=')[0]}", names)
        raise RecipeError(f"{where}: Beam has no option {' '.join(unread)}; {hint}accepted: Beam's options")
    engine.set_up()
    return engine


def _find_unknown(parser: argparse.ArgumentParser, words: Sequence[str], where: str) -> list[str]:
    """Return the words that Beam does not know. Raises RecipeError if it cannot parse one."""
    try:
        return parser.parse_known_args(words)[1]
    except argparse.ArgumentError as error:
        raise RecipeError(f"{where}: {error}") from None
    except ValueError as error:  # invalid JSON
        raise RecipeError(f"{where}: {error} (found {shorten(' '.join(words))})") from None


def _check_runner(runner: str, where: str) -> None:
    """Raise RecipeError if Beam has no such runner. Beam also accepts names without the suffix "Runner"."""
    if reason := ENGINES.broken.get(runner.lower()):
        raise RecipeError(f"{where}: {reason}")
    names = StandardOptions.KNOWN_RUNNER_NAMES
    lower = [name.lower() for name in names]
    if "." not in runner and runner.lower() not in (*lower, *(name.removesuffix("runner") for name in lower)):
        engines = ENGINES.kinds()
        accepted = f"{', '.join(engines)}; a runner of Beam ({', '.join(names)}); or the dotted path of a class"
        hint = did_you_mean(runner, [*engines, *names])
        raise RecipeError(f"{where}: no runner {runner!r}; {hint}accepted: {accepted}")


class _Options(PipelineOptions):
    """Options with cached views: Beam requests two for each transform, and builds a parser for each view."""

    @cache  # noqa: B019 (a process has few of them)
    def view_as(self, cls: type[View]) -> View:
        """Return the options as another class; all views share their values."""
        return cast(View, super().view_as(cls))


def _make_parser() -> argparse.ArgumentParser:
    """Return a parser for Beam's options that raises errors; Beam's own drops unknown options."""
    parsers: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    parsers[0].exit_on_error = False
    return parsers[0]


def _read_file(path: str, parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """Return the words of each option in a file, by file and key. Raises RecipeError."""
    data, _ = read_mapping(path, f"--on {path}", "file of options", _ACCEPTED)
    options = {}
    for key, value in data.items():
        where = f"--on {path}: {key}"
        if not isinstance(key, str) or key.startswith("-") or "=" in key:
            name = str(key).lstrip("-").partition("=")[0]
            raise RecipeError(f"{where}: is not the name of an option; accepted: only the name, as in {name}: VALUE")
        options[where] = list(_to_words(key, value, parser._option_string_actions.get(f"--{key}"), where))
    return options


def _to_words(key: str, value: Any, action: argparse.Action | None, where: str) -> Iterator[str]:
    is_flag = action is not None and action.nargs == 0
    is_repeated = action is None or not (is_flag or isinstance(action, argparse._StoreAction))
    if is_flag or (action is None and isinstance(value, bool)):
        if not isinstance(value, bool):
            raise RecipeError(f"{where}: found {shorten(value)}; accepted: true or false")
        yield from [f"--{key}"] if value else []
    elif isinstance(value, dict) and action is not None and action.type is json.loads:
        yield f"--{key}={json.dumps(value, default=str)}"
    elif isinstance(value, dict) and is_repeated:
        yield from (f"--{key}={name}={_text(item, f'{where}.{name}')}" for name, item in value.items())
    elif isinstance(value, list) and is_repeated:
        yield from (f"--{key}={_text(item, where)}" for item in value)
    elif isinstance(value, dict | list):
        raise RecipeError(f"{where}: found {shorten(value)}; accepted: one value, as text or a number")
    else:
        yield f"--{key}={_text(value, where)}"


def _text(value: Any, where: str) -> str:
    """Return a value as a command line has it, and booleans as Spark has them. Raises RecipeError for other types."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise RecipeError(f"{where}: found {shorten(value)}; accepted: text, a number, true, or false; quote other values")
