"""Standard output of commands that print strangers' text."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from curate.ask.output import Result, write_result
from curate.ask.page import Page
from curate.cli.options import Format


@contextmanager
def open_output() -> Iterator[TextIO]:
    """Open standard output in UTF-8 whatever the locale is, since captions are in every language."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_result(result: Result, format: Format) -> None:
    """Print rows on standard output: `table` for people, `csv` or `json` for programs."""
    with open_output() as file:
        write_result(result, format.value, file)


def print_page(page: Page) -> None:
    """Print a page on standard output."""
    with open_output() as file:
        page.write(file)
