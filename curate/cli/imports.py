"""Keep libraries out of a command's process that others import where they happen to be installed.

Beam imports pandas, pymongo, boto3 and requests, by BigQuery, for sources and types that curate does not use, Arrow
pandas with its first array, and numba cffi and, with its first kernel, scipy's BLAS: half a second of each run, and 65
MB. All of them expect to miss these, and try once. Later imports succeed.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curate.base.registry import has_plugins

# New objects between searches for cycles, in a command's own process: most are of modules, which stay.
RARELY = 100_000
_OF_GOOGLE = ("google.cloud", "google.api_core", "google.auth")
UNUSED = ("pandas", "pymongo", "bson", "boto3", "regex", "requests", "absl", "cffi", "scipy", "dill", *_OF_GOOGLE)


class _Hidden:
    """A finder of `sys.meta_path` that finds no module of UNUSED, as if they were not installed."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name in UNUSED or name.partition(".")[0] in UNUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def without_unused() -> Iterator[None]:
    """Import what the block imports as if UNUSED were not installed, without collecting cycles.

    With plugins all is as installed. Arrow takes its memory by jemalloc, unless the environment names another one: huge
    pages of mimalloc cost a tenth of a run's CPU. An arena a core: threads do not use what is free in others' arenas.
    """
    gc.disable()
    finders = [] if has_plugins() else [_Hidden]
    sys.meta_path[:0] = finders
    if sys.platform == "linux":  # whose builds have it; what C++ reads as Arrow is imported
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        os.environ.setdefault("JE_ARROW_MALLOC_CONF", f"narenas:{os.cpu_count()}")
    try:
        import pyarrow as pa

        pa.array([])  # here Arrow looks for pandas
        yield
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
        if gc.get_threshold()[0] == RARELY:  # as in `curate.cli.main.command`; to count what is frozen takes longer
            gc.freeze()
        gc.enable()


def import_beam() -> None:
    """Import Beam and start numba without UNUSED; for Beam's local runner alone, since others may need them."""
    sys.modules.setdefault("IPython", None)  # type: ignore[arg-type]  # which Beam tries to import at each step
    with without_unused():
        import apache_beam  # noqa: F401

        from curate.base.numeric.elementary import GOLDEN, mix64

        mix64(GOLDEN)
