"""Beam's options, as all engines share them: read once by Beam itself, and what it does not know is an error."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

from curate.base.errors import RecipeError
from curate.base.wording import did_you_mean

View = TypeVar("View", bound=PipelineOptions)


class Options(PipelineOptions):
    """Options whose views are made once: Beam asks for two with each transform, and makes a parser for each.

    A job server says which options it knows (`add_extra_args_fn`), when the job is sent to it. What neither it nor Beam
    knows is an error.
    """

    def get_all_options(self, *switches: Any, add_extra_args_fn: Any = None, **named: Any) -> dict[str, Any]:
        """Return all options by name. Raises RecipeError where one is unknown to a job server too."""
        if add_extra_args_fn and (unknown := make_parser(add_extra_args_fn).parse_known_args(self._flags)[1]):
            raise RecipeError(say_unknown(self._flags, unknown, "neither Beam nor the job server knows"))
        options: dict[str, Any] = super().get_all_options(*switches, add_extra_args_fn=add_extra_args_fn, **named)
        return options

    def view_as(self, cls: type[View]) -> View:
        """Return the options as another class has them; all views share their values."""
        views: dict[type[PipelineOptions], Any] = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        view: View = views[cls]
        return view


def make_parser(add_options: Callable[[Any], None] | None = None) -> argparse.ArgumentParser:
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


def say_unknown(words: Sequence[str], unknown: Sequence[str], who: str) -> str:
    """Return the message of words that nobody knows."""
    hint = find_near(unknown[0].lstrip("-").partition("=")[0], "--")
    return f"Beam options {' '.join(words)}: {who} {' '.join(unknown)}{f'; {hint.rstrip()}' if hint else ''}"


def find_near(name: str, dashes: str) -> str:
    """Return the nearest option of Beam as a hint."""
    return did_you_mean(f"{dashes}{name}", [f"{dashes}{known}" for known in PipelineOptions([]).get_all_options()])
