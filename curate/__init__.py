"""Curate image-text pools into training sets: measure once, decide many times, with a reason for every sample.

`curate.Run(path)` opens a finished run from Python; it is imported on first use.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Run":
        return import_module("curate.api").Run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "Run"]
