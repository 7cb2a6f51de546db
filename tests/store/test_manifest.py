"""A manifest may come from a stranger, and can name only files of its folder."""

import pyarrow as pa
import pytest

from curate.base.errors import DamagedError
from curate.store.layout import MANIFEST_FILE
from curate.store.local import Digest
from curate.store.manifest import Lines, Published, read_manifest, write_manifest
from curate.store.validity import recorded_line, valid_digest


def write(folder, *paths):
    write_manifest(folder, Lines(Published(path, None, 1, "0" * 64) for path in paths))


def test_lines_come_back(folder):
    write(folder, "b..c/..d", "a.parquet")
    assert read_manifest(folder) == [Published(path, None, 1, "0" * 64) for path in ("a.parquet", "b..c/..d")]


def test_a_note_of_a_late_attempt_makes_no_published_file_another(folder):
    """A worker that was cut off records its digest, and is killed before it sees the published file."""
    name = "tables/scores/00000.parquet"
    folder.write_parquet(name, pa.table({"score": [1.0]}))
    write_manifest(folder, Lines([recorded_line(folder, name)]))
    folder.delete("parts")
    folder._record(name, Digest(1, "0" * 64, 1))
    digest = valid_digest(folder, name)
    assert digest and digest.is_of(folder.digest(name))


@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "shards/../../a.tar", "shards/..", "..", "a\0b"])
def test_files_outside_are_refused(folder, path):
    write(folder, "shards/a.tar", path)
    with pytest.raises(DamagedError, match=r"manifest\.parquet is damaged: .* is outside the folder"):
        read_manifest(folder)


@pytest.mark.parametrize("columns", [{"path": [1]}, {"path": [None]}, {"name": ["a"]}, {"path": ["a"], "rows": ["b"]}])
def test_other_columns_are_refused(folder, columns):
    folder.write_parquet(MANIFEST_FILE, pa.table(columns))
    with pytest.raises(DamagedError, match=r"manifest\.parquet is damaged: "):
        read_manifest(folder)


@pytest.mark.parametrize("content", [b"", bytes(1000), b"PAR1" + bytes(1000) + b"PAR1"])
def test_bytes_of_something_else(folder, content):
    folder.write_bytes(MANIFEST_FILE, content)
    with pytest.raises(DamagedError, match=r"manifest\.parquet"):
        read_manifest(folder)
