"""manifest.parquet: every published file but itself and `_SUCCESS`, with rows, bytes and sha256. Only it says what exists."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from curate import schema
from curate.errors import DamagedError, RecipeError
from curate.store.layout import FORGETTING_FILE, MANIFEST_FILE, RUN_FILE
from curate.store.store import RunStore
from curate.wording import one_line

_BLOCK = 1 << 22


@dataclass(frozen=True)
class Published:
    """A line of the manifest: a file, its rows (None where it has none that are counted), bytes and sha256."""

    path: str
    rows: int | None
    bytes: int
    sha256: str


def no_run(folder: RunStore, url: str) -> RecipeError:
    """Return the error for a place that holds no run."""
    if not folder.fs.isdir(folder.root):
        return RecipeError(f"{url}: no such folder; accepted: the folder of a run (the --out of `curate run`)")
    inside = folder.exists(f"run/{RUN_FILE}")  # as `curate demo` lays it out
    near = f"did you mean {url.rstrip('/')}/run? " if inside else ""
    return RecipeError(f"{url}: not a run folder (no {RUN_FILE}); {near}accepted: the --out of a `curate run`")


def how_to_go_on(folder: RunStore, url: str) -> str:
    """Return what a user does where `_SUCCESS` is missing."""
    if folder.exists(FORGETTING_FILE):
        return f"`curate forget` was interrupted, and `curate forget {url}` completes it"
    return "run its recipe again with the same --out: it continues where it stopped"


def digest_file(folder: RunStore, path: str, rows: int | None = None) -> Published:
    """Return the manifest's line of a file. Rows are counted by its footer where it is Parquet."""
    state, size = hashlib.sha256(), 0
    with folder.open(path) as file:
        while block := file.read(_BLOCK):
            state.update(block)
            size += len(block)
    if path.endswith(".parquet"):
        rows = folder.footer(path)[2]
    return Published(path, rows, size, state.hexdigest())


@dataclass(frozen=True)
class Fault:
    """What is wrong with a published file; `known` where it is missing or differs, and not where it cannot be read now."""

    text: str
    known: bool = True


def find_faults(folder: RunStore, lines: Sequence[Published]) -> dict[str, Fault]:
    """Read every file that the manifest lists, and return of those that differ path → what is wrong."""

    def check(line: Published) -> Fault | None:
        try:
            found = digest_file(folder, line.path, line.rows)
        except FileNotFoundError:
            return Fault("is missing")
        except DamagedError as error:
            return Fault(str(error).removeprefix(f"{folder.path(line.path)}: "))
        except OSError as error:
            return Fault(f"cannot be read: {one_line(error)}", known=False)
        for name in ("bytes", "rows", "sha256"):
            if getattr(found, name) != getattr(line, name):
                return Fault(f"{name} is {getattr(found, name)}, the manifest says {getattr(line, name)}")
        return None

    with ThreadPoolExecutor() as pool:
        return {line.path: fault for line, fault in zip(lines, pool.map(check, lines), strict=True) if fault}


def write_manifest(folder: RunStore, published: Iterable[Published]) -> None:
    """Write the manifest, sorted by path."""
    rows = sorted(published, key=lambda line: line.path)
    folder.write_parquet(MANIFEST_FILE, pa.Table.from_pylist([vars(line) for line in rows], schema=schema.MANIFEST))


def read_manifest(folder: RunStore) -> list[Published]:
    """Return the lines of the manifest. Raises RunError where it is damaged."""
    try:
        return [Published(**row) for row in folder.read_parquet(MANIFEST_FILE).to_pylist()]
    except TypeError as error:  # other columns
        raise DamagedError(f"{folder.url}: {MANIFEST_FILE} is damaged: {one_line(error)}") from None
