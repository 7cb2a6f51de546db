"""manifest.parquet: rows, bytes and sha256 of every published file, except of itself and of `_SUCCESS`."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from curate.base import schema
from curate.base.errors import DamagedError, RecipeError, describe, reraised
from curate.base.wording import one_line
from curate.store.layout import FORGETTING_FILE, MANIFEST_FILE, RUN_FILE
from curate.store.store import RunStore

_WAITING = 1000  # this many lines wait before they are converted to Arrow
_OUTSIDE = r"\A/|(\A|/)\.\.(/|\z)|\x00"  # paths outside the folder: absolute, or with `..`


@dataclass(frozen=True)
class Published:
    """A line in the manifest: a file, its number of rows (None if rows are not counted), its bytes and its sha256."""

    path: str
    rows: int | None
    bytes: int
    sha256: str


def no_run(folder: RunStore, url: str) -> RecipeError:
    """Return the error for a folder without a run."""
    if not folder.fs.isdir(folder.root):
        return RecipeError(f"{url}: no such folder; accepted: the folder of a run (the --out of `curate run`)")
    inside = folder.exists(f"run/{RUN_FILE}")  # the folder of `curate demo` has one
    near = f"did you mean {url.rstrip('/')}/run? " if inside else ""
    return RecipeError(f"{url}: not a run folder (no {RUN_FILE}); {near}accepted: the --out of a `curate run`")


def how_to_go_on(folder: RunStore, url: str) -> str:
    """Return what the user can do if `_SUCCESS` is missing."""
    if folder.exists(FORGETTING_FILE):
        return f"`curate forget` was interrupted, and `curate forget {url}` completes it"
    return "run its recipe again with the same --out: the run continues, or prints again why it stopped"


def digest_file(folder: RunStore, path: str, rows: int | None = None) -> Published:
    """Read a file, and return its line for the manifest. For Parquet files, the footer gives the number of rows."""
    size, sha256, _ = folder.digest(path)
    return Published(path, folder.footer(path)[2] if path.endswith(".parquet") else rows, size, sha256)


def find_faults(folder: RunStore, lines: Sequence[Published]) -> dict[str, str]:
    """Read every file in the manifest. Return the problem of each file that differs, by its path."""

    def check(line: Published) -> str | None:
        try:
            now = digest_file(folder, line.path, line.rows)
        except FileNotFoundError:
            return "is missing"
        except DamagedError as error:
            return str(error).removeprefix(f"{folder.path(line.path)}: ")
        except OSError as error:
            return f"cannot be read: {one_line(describe(error))}"
        for name in ("bytes", "rows"):
            if getattr(now, name) != getattr(line, name):
                return f"has {getattr(now, name)} {name}, but the manifest says {getattr(line, name)}"
        return None if now == line else f"sha256 is {now.sha256}, but the manifest says {line.sha256}"

    with ThreadPoolExecutor() as pool:
        return {line.path: problem for line, problem in zip(lines, pool.map(check, lines), strict=True) if problem}


class Lines:
    """Many lines for a manifest. They are stored as Arrow, which needs a tenth of the memory of Python objects."""

    def __init__(self, lines: Iterable[Published] = ()) -> None:
        self._table = schema.MANIFEST.empty_table()
        self._waiting: list[Published] = []
        self.add(lines)

    def add(self, lines: Iterable[Published]) -> None:
        self._waiting += lines
        if len(self._waiting) > _WAITING:
            self._table = self.table

    def merge(self, other: Self) -> None:
        self._table = pa.concat_tables([self.table, other.table])

    @property
    def table(self) -> pa.Table:
        """The lines as a table with schema.MANIFEST."""
        if self._waiting:
            rows = pa.Table.from_pylist([vars(line) for line in self._waiting], schema=schema.MANIFEST)
            self._table, self._waiting = pa.concat_tables([self._table, rows]), []
        return self._table

    @property
    def paths(self) -> list[str]:
        return list(map(str, self.table["path"].to_pylist()))

    def below(self, top: str) -> list[Published]:
        return [Published(**row) for row in self.table.filter(pc.starts_with(self.table["path"], top)).to_pylist()]

    def rows(self, top: str, suffix: str) -> dict[str, int]:
        """Return the number of rows of files with this prefix and suffix, by path without the prefix."""
        table, paths = self.table, self.table["path"]
        is_one = pc.and_(pc.and_(pc.starts_with(paths, top), pc.ends_with(paths, suffix)), table["rows"].is_valid())
        columns = table.filter(is_one).select(["path", "rows"]).to_pydict()
        return {path.removeprefix(top): rows for path, rows in zip(*columns.values(), strict=True)}


def write_manifest(folder: RunStore, lines: Lines) -> None:
    """Write the manifest, sorted by path."""
    folder.write_parquet(MANIFEST_FILE, lines.table.sort_by("path").combine_chunks())


def read_manifest(folder: RunStore) -> list[Published]:
    """Return the lines of the manifest. Raises DamagedError if it is damaged, or names files outside the folder."""
    damaged = TypeError, KeyError, ValueError, pa.ArrowException  # for example other columns
    with reraised(DamagedError, f"{folder.url}: {MANIFEST_FILE} is damaged", *damaged):
        table = folder.read_parquet(MANIFEST_FILE)
        if (outside := pc.index(pc.match_substring_regex(table["path"], _OUTSIDE).fill_null(True), True).as_py()) >= 0:
            raise TypeError(f"{str(table['path'][outside])[:200]!r} is outside the folder")
        return [Published(**row) for row in table.cast(schema.MANIFEST).to_pylist()]
