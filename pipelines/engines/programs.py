"""Programs that engines need on this machine: Java, and what Beam finds or downloads. Errors say how to get them."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from curate.base.errors import RecipeError
from curate.base.wording import one_line


def check_java(launcher: str, needed: str, least: int = 0) -> None:
    """Raise RecipeError where there is no Java, or one before version `least`."""
    install = "install one (a JRE is enough), and set JAVA_HOME or PATH to find it"
    try:
        done = subprocess.run([launcher, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RecipeError(f"{needed}, but none is found: {one_line(error, 200)}; {install}") from None
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)  # 1.8.0_392 is 8
    if version and int(version[1]) < least:
        raise RecipeError(f"{needed}, but {launcher} is Java {version[1]}; {install}")


@contextmanager
def fetching(needed: str, accepted: str) -> Iterator[None]:
    """Let Beam find or download a program in the block. Raises RecipeError where it is not there."""
    try:
        yield
    except Exception as error:  # of Beam's downloads: of many kinds
        raise RecipeError(f"{needed}, which is missing: {one_line(error, 500)}; accepted: {accepted}") from None
