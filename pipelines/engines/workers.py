"""Checks, before anything is written, that workers can do the run, and reports their problems as one error.

Workers need the same Python, Beam and curate. They must see and write the folders of the run, of downloads and of the
engine, read the first and last file of each source, and load the models for measuring. There is one task for each unit
that waits to be measured. It loads the models as measuring would, and they stay loaded. Caption engines are tried only
when they are used.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import apache_beam
import fsspec

import curate
from curate.base.errors import CurateError, RecipeError, reraised
from curate.base.process import cleaned_up, in_threads
from curate.base.wording import one_line, pluralize
from curate.download.lists import kind_of
from curate.download.source import UrlsSource
from curate.measure.current import needed_signals
from curate.measure.settings import MeasureSettings
from curate.pool.plan import Unit
from curate.pool.registry import find_downloading, find_format
from curate.read.listing import list_files
from curate.recipe.secrets import check_variables
from curate.run.context import RunContext
from curate.run.inputs import copy_inputs, place_inputs
from curate.store.layout import RUN_FILE
from curate.store.store import RunStore

PACKAGES = {"apache_beam": apache_beam.__version__, "curate": curate.__version__}  # versions that workers need
_LOADING = 1000  # units that are checked for models to load, which limits the number of tasks
_ATTEMPTS = 5  # half a second apart, to see a file that another machine has just written
_FAULTS = 3  # reported errors: one usually explains the others
_SHARED = "accepted: a folder that all machines share under the same path, or the URL of a store"


@contextmanager
def asking_workers(
    context: RunContext, units: Sequence[Unit], folders: Sequence[tuple[str, RunStore]] = ()
) -> Iterator["Ask"]:
    """Yield the check for an engine to send to workers. During the block, each folder contains a probe file.

    `folders` are the engine's own folders. Raises RecipeError if a folder is not writable here.
    """
    downloads = [source for source in context.sources if isinstance(source, UrlsSource) and source.store]
    stores = ((f"input {source.name!r}: store", RunStore(str(source.store))) for source in downloads)
    every = (("--out", context.store), *stores, *folders)
    nonce = f"tmp/probe-{uuid.uuid4().hex}"
    signals, waiting = _find_waiting(context, units)
    store = context.store
    inputs: dict[str, str] = {}
    files = tuple(find_files(context, units))
    if not context.place.is_this_machine:
        recipe, inputs = place_inputs(context.recipe, store, f"{nonce}-inputs")
        context = replace(context, recipe=recipe)
    with ExitStack() as written:
        for label, folder in every:
            written.enter_context(_written(label, folder, nonce))
        if inputs:
            written.enter_context(cleaned_up(lambda: store.delete(f"{nonce}-inputs")))
            copy_inputs(inputs, store)
        yield Ask(context, nonce, every, files, signals, waiting)


def raise_faults(faults: Mapping[str, list[str]]) -> None:
    """Raise RecipeError with the errors that workers found, and their hosts."""
    lines = []
    for error, hosts in islice(faults.items(), _FAULTS):
        others = f" and {pluralize(len(hosts) - 1, 'more host')}" if len(hosts) > 1 else ""
        lines.append(f"{error} (on {hosts[0]}{others})")
    if lines:
        raise RecipeError("\n".join(lines))


@dataclass(frozen=True)
class Ask:
    """The check that runs on a worker, called with the number of its task."""

    context: RunContext
    nonce: str  # the probe file's name in each folder
    folders: tuple[tuple[str, RunStore], ...]  # each with its label in messages
    files: tuple[tuple[str, str, Mapping[str, Any]], ...]  # label, path, options of the file system
    signals: tuple[str, ...]  # the signals whose models are loaded
    units: int  # the number of tasks that load them

    def __call__(self, number: int) -> list[str]:
        """Return the errors on this worker."""
        from curate.llm.endpoint import read_key  # a local run does not need this import

        errors: list[str] = []
        for label, store in self.folders:
            with _adding(errors, f"{label} {store.url}: executors cannot write there"):
                if not self._is_seen(store):
                    unseen = "executors do not see the files that this machine writes there"
                    errors.append(f"{label} {store.url}: {unseen}; {_SHARED}")
        try:
            for source in self.context.sources:
                check_variables(source.name, source.storage)
            for spec in self.context.recipe.captions.engines.values() if self.context.recipe.captions else ():
                read_key(getattr(spec.section, "key", None))
        except RecipeError as error:
            return [*errors, str(error)]
        for label, path, storage in self.files:
            with _adding(errors, f"{label}: executors cannot read {path}", f"; {_SHARED}"):
                fs, inner = fsspec.core.url_to_fs(path, **storage)
                with fs.open(inner, "rb") as file:
                    file.read(1)
        for signal in MeasureSettings.of(self.context).signals if number < self.units else ():
            if signal.load and signal.name in self.signals:
                with _adding(errors, f"executors cannot load signal {signal.name!r}"):
                    signal.load()
        return errors

    def _is_seen(self, store: RunStore) -> bool:
        for _ in range(_ATTEMPTS):  # network disks may show a file late
            if store.exists(self.nonce):
                name = f"{self.nonce}-{uuid.uuid4().hex}"
                store.write_bytes(name, b"")
                store.delete(name)
                return True
            time.sleep(0.5)
        return False


@contextmanager
def _adding(faults: list[str], text: str, remedy: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:  # from any library
        kind = "" if isinstance(error, CurateError) else f"{type(error).__name__}: "
        faults.append(f"{text}: {kind}{one_line(error, 300)}{remedy}")


@contextmanager
def _written(label: str, store: RunStore, name: str) -> Iterator[None]:
    """Keep an empty file in a folder during the block; also remove folders that it needed. Raises RecipeError."""
    new = [folder for folder in Path(store.path(name)).parents if not folder.exists()] if store.is_local else []
    with reraised(RecipeError, f"{label} {store.url}: cannot be written", OSError):
        store.write_bytes(name, b"")

    def remove() -> None:
        store.delete(name)
        for folder in new:
            with suppress(OSError):  # it has other files
                os.rmdir(folder)

    with cleaned_up(remove):
        yield


def find_files(context: RunContext, units: Sequence[Unit]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the first and last file of each source, the first file of each join, and one of the reused run."""
    sources = {source.name: source for source in context.sources}
    shared = {source.name for source in context.sources if find_downloading(source)}
    for name, of_source in groupby(units, key=lambda unit: unit.source):
        parts = [part for unit in of_source for part in (unit.parts[0], unit.parts[-1]) if not part.fault]
        source = sources[name]
        with reraised(source.error, f"{source.path} cannot be listed", OSError, ImportError):
            paths = [find_format(source).example_file(source, part) for part in (*parts[:1], *parts[-1:])]
        for path in filter(None, dict.fromkeys(paths)):
            if name not in shared or kind_of(path) == "parquet":  # other lists are copied to the run folder
                yield f"input {name!r}", path, source.storage
    for source in context.sources:
        for join in source.join:
            yield f"input {source.name!r}: join", list_files(join.path, {})[0].path, {}
    if context.reuse is not None:
        yield "--reuse", f"{context.reuse.url}/{RUN_FILE}", context.reuse.storage


def _find_waiting(context: RunContext, units: Sequence[Unit]) -> tuple[tuple[str, ...], int]:
    settings = MeasureSettings.of(context)
    if not any(signal.load for signal in settings.signals):
        return (), 0

    def needed(unit: Unit) -> list[str]:
        return [signal.name for signal in needed_signals(settings, unit, context.unit_tables(unit)) if signal.load]

    waiting = [names for names in in_threads(needed, islice(units, _LOADING)) if names]
    return tuple({name: None for names in waiting for name in names}), len(waiting)
