"""The pipeline that builds metadata. In: downloaded files. Out: one table of entries, and a report.

parts ─ count ─ totals ─ files of counts by language ─ choose ─ one table
"""

import gc
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import apache_beam as beam

from curate.base.errors import RecipeError, reraised
from curate.match.building.parts import Plan
from curate.match.building.steps import build_metadata, gather_entries
from curate.match.building.wikis import BuildSettings, Limits, Mode
from curate.match.metadata import read_metadata
from curate.store.lock import clear_tmp, locked
from curate.store.store import RunStore
from pipelines.driver import explaining
from pipelines.engines.base import PipelineEngine
from pipelines.engines.choose import choose_engine
from pipelines.steps.units import BeamUnits


def run_build(
    plan: Plan,
    out: str,
    mode: Mode,
    limits: Limits,
    options: Sequence[str] = (),
    on: str | None = None,
    english: str | None = None,
) -> dict[str, Any]:
    """Build the metadata of a plan into the file `out`, write its report next to it, and return the report.

    `english` is a list or table with the English entries to use. Intermediate counts are in `OUT.building`.

    Raises:
        RecipeError: options are wrong, the engine needs something that is missing, or `out` is not writable.
        RunError: a file is damaged, or the build failed.
    """
    path = _absolute(out)
    if os.path.isdir(path):
        raise RecipeError(f"--out {out}: is a folder; accepted: the name of a file, such as metadata.parquet")
    work = work_folder(out)
    listed = read_metadata(english)[0] if english else None
    engine = choose_engine(options, on, work.url)
    engine.check()
    engine.check_folder(work)
    settings = BuildSettings(work, mode, plan.keys, limits)
    with reraised(RecipeError, f"--out {out}: cannot be written", OSError), locked(work, "metadata build"):
        _clear(work)  # leftovers of a killed build
        _run(plan, settings, engine)
        report = gather_entries(settings, path, listed)
        _clear(work)
    if work.is_local:
        with suppress(OSError):  # it has other files
            os.rmdir(work.root)
    return report


def work_folder(out: str) -> RunStore:
    """Return the folder for intermediate files of a build of `out`."""
    return RunStore(f"{_absolute(out)}.building")


def _absolute(out: str) -> str:
    return out if "://" in out else os.path.abspath(os.path.expanduser(out))


def _clear(work: RunStore) -> None:
    clear_tmp(work)
    for name in work.names(""):
        if name != "tmp":  # it has the lock
            work.delete(name)


def _run(plan: Plan, settings: BuildSettings, engine: PipelineEngine) -> None:
    """Run the steps of the build on the engine, and wait for their end."""
    # Stand-ins for a run's context and units, with all that the steps of a build use.
    context: Any = SimpleNamespace(store=settings.store, place=engine.place, lease="", open_tables=nullcontext)
    parts: Any = plan.parts

    def add_steps(root: beam.Pipeline, spool: str) -> None:
        units = BeamUnits(root, parts, context, spool=spool)
        build_metadata(units, settings)
        units.finish()
        gc.freeze()  # so that garbage collection skips all imports; `explaining` unfreezes

    hint = "The build starts from the beginning next time."
    with explaining(settings.store, hint), settings.store.temporary_folder() as spool:
        engine.submit(partial(add_steps, spool=spool), settings.store).wait()
