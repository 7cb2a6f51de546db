"""Keeps optional libraries out of a command's process.

Beam imports pandas, pymongo, boto3 and requests if they are installed, for sources and types that curate does not use.
Arrow imports pandas with its first array. numba imports cffi, and also scipy with its first kernel. Together, they cost
half a second and 65 MB in each run. These imports are optional, and each library tries them once. Later imports of the
same modules succeed.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from curate.base.registry import has_plugins

# new objects between two garbage collections in a command's own process: most belong to modules, which stay.
RARELY = 100_000
_OF_GOOGLE = ("google.cloud", "google.api_core", "google.auth")
UNUSED = ("pandas", "pymongo", "bson", "boto3", "regex", "requests", "absl", "cffi", "scipy", "dill", *_OF_GOOGLE)


class _Hidden:
    """A finder for `sys.meta_path` that hides the modules in UNUSED."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name in UNUSED or name.partition(".")[0] in UNUSED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def without_unused() -> Iterator[None]:
    """Run the imports in the block as if UNUSED were not installed, and without garbage collections.

    If there are plugins, nothing is hidden. Arrow allocates with jemalloc, unless the environment names another
    allocator, because the huge pages of mimalloc cost a tenth of a run's CPU time. There is one arena per core, because
    threads do not share the free memory of arenas.
    """
    gc.disable()
    finders = [] if has_plugins() else [_Hidden]
    sys.meta_path[:0] = finders
    if sys.platform == "linux":  # Arrow's builds for Linux have jemalloc, and read these at import
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
        os.environ.setdefault("JE_ARROW_MALLOC_CONF", f"narenas:{os.cpu_count()}")
    try:
        import pyarrow as pa

        pa.array([])  # makes Arrow look for pandas
        yield
    finally:
        for finder in finders:
            sys.meta_path.remove(finder)
        if gc.get_threshold()[0] == RARELY:  # set by `curate.cli.main.command`
            gc.freeze()
        gc.enable()


def import_beam() -> None:
    """Import Beam and start numba without UNUSED.

    Use this only for Beam's local runner: other runners may need them.
    """
    sys.modules.setdefault("IPython", None)  # type: ignore[arg-type]  # which Beam tries to import at each step
    with without_unused():
        import apache_beam  # noqa: F401

        from curate.base.numeric.elementary import GOLDEN, mix64

        mix64(GOLDEN)
