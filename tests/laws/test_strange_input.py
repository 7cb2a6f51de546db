"""Law 1 on unusual inputs: each gives a finished run with a clear reason, or an error before the run."""

import errno
import hashlib
import json
import os
import tarfile
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import RecipeError, RunError
from curate.cli.run import run as command
from pipelines import curate as pipeline
from tests import kit
from tests.kit import Ran, conserved, loads, runs

pytestmark = pytest.mark.thorough

IMAGES = [kit.encode(kit.picture(i)) for i in range(10)]
URLS = [f"https://example.com/{i}" for i in range(10)]
CAPTIONS = [f"a red dog {i}" for i in range(10)]


def tar_of(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            kit.add_member(tar, name, data)
    return str(path)


def sample(key, number, fields=None):
    """Return the members of a good sample."""
    members = [(f"{key}.jpg", IMAGES[number]), (f"{key}.txt", f"a red dog {number}".encode())]
    return members if fields is None else [*members, (f"{key}.json", fields)]


def parquet_of(path, **columns):
    """Write a file of ten good rows of text, with more or other columns."""
    pq.write_table(pa.table({"url": URLS, "caption": CAPTIONS, **columns}), path, row_group_size=4)
    return str(path)


def run(path, out, form="webdataset", **sections):
    done = kit.run_local(kit.recipe_of(path, form, **sections), out)
    conserved(done)
    if form == "webdataset":
        loads(done)
    return done


# ---------------------------------------------------------------- tars
def test_tar_in_a_tar(tmp_path):
    inner = Path(tar_of(tmp_path / "inner.tar", *sample("in", 1))).read_bytes()
    members = [*sample("a", 0), ("a.tar", inner), ("b.tar", inner), *sample("c", 2)]
    done = run(tar_of(tmp_path / "outer.tar", *members), tmp_path / "out")
    assert done.outcomes == {("outer.tar", "a"): "kept", ("outer.tar", "b"): "no_image", ("outer.tar", "c"): "kept"}
    assert loads(done)["a"]["tar"] == inner


JSONS = {
    "an integer of 10 MB": (b'{"n": ' + b"9" * 10_000_000 + b"}", "invalid_json"),
    "a float of 10 MB": (b'{"n": 1' + b"0" * 10_000_000 + b".0}", "kept"),
    "20 MB": (b'{"n": "' + b"9" * 20_000_000 + b'"}', "invalid_json"),
    "100,000 deep": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    "a list": (b"[]", "invalid_json"), "null": (b"null", "invalid_json"), "0 bytes": (b"", "invalid_json"),
    "not UTF-8": (b'{"a": "\xff"}', "invalid_json"), "two objects": (b"{} {}", "invalid_json"),
    "NUL": (b'{"a": 1}\0', "invalid_json"),
    "lone surrogates": (b'{"exif": "\\ud800", "url": "https://x/\\udfff", "\\ud801": 1}', "kept"),
    "NaN": (b'{"a": NaN, "b": [-Infinity], "width": NaN}', "kept"),
    "odd sizes": (b'{"width": true, "height": -5, "original_width": 1e999, "original_height": 99999999999}', "kept"),
    "odd types": (b'{"uid": 5, "captions": [], "key": null, "caption": {}, "url": ["x"], "exif": 7}', "kept"),
    "a key twice": (b'{"url": "https://x/1", "url": "https://x/2", "uid": "ab", "uid": null}', "kept"),
    "NUL within": (b'{"url": "a\\u0000b", "exif": "\\u0000"}', "kept"),
}  # fmt: skip


def test_strange_json(tmp_path):
    samples = [
        ((f"{name}.jpg", IMAGES[n % 10]), (f"{name}.txt", f"a red dog {n}".encode()), (f"{name}.json", data))
        for n, (name, (data, _)) in enumerate(JSONS.items())
    ]
    done = run(tar_of(tmp_path / "x.tar", *(member for members in samples for member in members)), tmp_path / "out")
    assert done.outcomes == {("x.tar", name): outcome for name, (_, outcome) in JSONS.items()}
    for name, members in loads(done).items():
        fields, old = json.loads(members["json"]), json.loads(JSONS[name][0])
        assert repr(fields) == repr(old | {"uid": fields["uid"]})


def test_strange_suffixes(tmp_path):
    suffixes = ["x\ny", "z" * 200, "", "json.gz", "..", "con", "jpg ", "seg.png", "jpg.jpg", "é", "\u202egpj"]
    members = [*sample("a", 0), *((f"a.{suffix}", b"x%d" % n) for n, suffix in enumerate(["a/../../etc", *suffixes]))]
    done = run(tar_of(tmp_path / "x.tar", *members), tmp_path / "out")
    assert done.outcomes["x.tar", "a"] == "kept"
    assert {b"x%d" % n for n in range(1, len(members) - 2)} <= {*loads(done)["a"].values()}, "no member is lost"


@pytest.mark.parametrize("size", [8**11 - 1, 2**40, 2**62, 2**80])
@pytest.mark.parametrize("before", [0, 2], ids=["an image", "an ancillary member"])
def test_a_header_that_announces_too_much(size, before, tmp_path):
    """The run keeps the samples before it, and reports the header's sample if the header can be read."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in [*sample("a", 0), *sample("b", 1)[:before]]:
            kit.add_member(tar, name, data)
        end = tar.offset
    info = tarfile.TarInfo("b.seg" if before else "b.jpg")
    info.size = size
    path.write_bytes(path.read_bytes()[:end] + info.tobuf(tarfile.GNU_FORMAT) + b"some bytes")
    done = run(str(path), tmp_path / "out")
    assert done.outcomes["x.tar", "a"] == "kept"
    reason = done.reasons["x.tar", None]
    assert reason == ("truncated_tar" if size < 2**60 else "damaged_tar")
    without_it = "kept" if before else None
    assert done.outcomes.get(("x.tar", "b")) == ("truncated_member" if reason == "truncated_tar" else without_it)


# ---------------------------------------------------------------- what is no file
def test_what_is_no_file(tmp_path):
    (tmp_path / "folder.tar").mkdir()
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / "link.tar").symlink_to(tmp_path / "nowhere")
    for name, match in (("folder", "is a folder"), ("fifo", "fifo.tar"), ("link", "no such file")):
        with pytest.raises(RecipeError, match=match):
            run(str(tmp_path / f"{name}.tar"), tmp_path / "out")


def test_links_to_tars(tmp_path):
    """Caches of datasets keep pools of links."""
    tar_of(tmp_path / "blob", *sample("a", 0))
    (tmp_path / "pool").mkdir()
    tar_of(tmp_path / "pool/0.tar", *sample("b", 1))
    (tmp_path / "pool/1.tar").symlink_to(tmp_path / "blob")
    for number, path in enumerate(("{0..1}.tar", "*.tar")):
        assert run(f"{tmp_path}/pool/{path}", tmp_path / f"{number}").counts == {"kept": 2}


# ---------------------------------------------------------------- files that change
def changing(monkeypatch, after, path, data):
    """Replace or remove a file after the run was planned (`claim_folder`) or measured (`decide_rows`)."""
    module = runs if after == "claim_folder" else pipeline
    step = getattr(module, after)

    def stepping(*arguments):
        result = step(*arguments)
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        return result

    monkeypatch.setattr(module, after, stepping)


def test_a_file_that_changes_before_it_is_measured(tmp_path, monkeypatch):
    """The run describes the new file."""
    path = Path(tar_of(tmp_path / "x.tar", *sample("a", 0), *sample("b", 1)))
    changing(monkeypatch, "claim_folder", path, path.read_bytes().replace(b"red dog 1", b"bad cat 1"))
    done = run(str(path), tmp_path / "out")
    assert loads(done)["b"]["txt"] == b"a bad cat 1"
    assert done.table("samples")["caption"].to_pylist()[1] == "a bad cat 1"


def test_a_file_that_vanishes(tmp_path, monkeypatch):
    paths = [Path(tar_of(tmp_path / f"{n}.tar", *sample("a", n))) for n in range(2)]
    changing(monkeypatch, "claim_folder", paths[0], None)
    done = run([str(path) for path in paths], tmp_path / "out")
    assert done.reasons == {("0.tar", None): "unreadable"} and done.counts == {"kept": 1}


@pytest.mark.parametrize("change", ["caption", "image", "shorter", "gone"])
def test_a_file_that_changes_after_it_was_measured(change, tmp_path, monkeypatch):
    """The run fails and names the file; a new run reads the changed file."""
    path = Path(tar_of(tmp_path / "x.tar", *sample("a", 0), *sample("b", 1)))
    data = path.read_bytes()
    changed = {
        "caption": data.replace(b"red dog 1", b"bad cat 1"), "image": data.replace(IMAGES[1], bytes(len(IMAGES[1]))),
        "shorter": data[:1000], "gone": b"",
    }  # fmt: skip
    with monkeypatch.context() as patched:
        changing(patched, "decide_rows", path, changed[change])
        with pytest.raises(RunError, match=r"x\.tar: the file changed during the run"):
            run(str(path), tmp_path / "out")
    assert not (tmp_path / "out/_SUCCESS").exists()
    done = run(str(path), tmp_path / "new", max_failed=1, max_failed_files=1)
    measured = {row["key"]: row for row in done.table("samples").to_pylist()}
    for key, members in loads(done).items():
        assert hashlib.sha256(members["jpg"]).hexdigest() == measured[key]["sha256"]
        assert members["txt"].decode() == measured[key]["caption"]


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_other_bytes_under_the_same_state_end_the_run(form, tmp_path, monkeypatch):
    """A server may send other bytes with the same ETag and size. The run does not emit them."""
    path = Path(tar_of(tmp_path / "x.tar", *sample("a", 0), *sample("b", 1)))
    if form == "parquet":
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table({"image": IMAGES[:2], "caption": CAPTIONS[:2]}), path, compression="none")
    data, at = path.read_bytes(), path.stat()
    other = bytearray(IMAGES[1])
    other[-20] ^= 1
    monkeypatch.setattr("curate.pool.formats.input_format.file_state", lambda path, storage: "the same")
    with monkeypatch.context() as patched:
        changing(patched, "decide_rows", path, data.replace(IMAGES[1], bytes(other)))
        with pytest.raises(RunError, match=rf"x\.{path.suffix[1:]}: the image of sample .* has changed since"):
            run(str(path), tmp_path / "out", form)
    assert not (tmp_path / "out/_SUCCESS").exists()
    path.write_bytes(data)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    done = run(str(path), tmp_path / "out", form)  # the server gives the right bytes again
    assert done.counts == {"kept": 2}


def test_a_full_disk_is_named_with_what_to_do(tmp_path, monkeypatch):
    """The message names no step of the pipeline; once there is room, the run continues."""
    tar_of(tmp_path / "x.tar", *sample("a", 0), *sample("b", 1))
    (tmp_path / "r.yaml").write_text("input: {name: pool, format: webdataset, path: x.tar}\n")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("curate.tar.writer.TarWriter.add", full)
        with pytest.raises(RunError) as caught:
            command(str(tmp_path / "r.yaml"), str(tmp_path / "out"))
    assert str(caught.value).startswith(f"{tmp_path}/out: no space is left on its disk")
    assert "running" not in str(caught.value)
    command(str(tmp_path / "r.yaml"), str(tmp_path / "out"))
    conserved(Ran(tmp_path / "out"))


# ---------------------------------------------------------------- Parquet
@pytest.mark.parametrize(
    "column",
    [
        pa.array([[c] for c in CAPTIONS]), pa.array([{"a": c} for c in CAPTIONS]), pa.array(range(10)),
        pa.array([True] * 10), pa.array([date(2020, 1, 1)] * 10),
    ],
    ids=lambda column: str(column.type),
)  # fmt: skip
def test_captions_of_another_type(column, tmp_path):
    path = parquet_of(tmp_path / "x.parquet", caption=column)
    with pytest.raises(RecipeError, match=r"caption column 'caption' is .*, not text"):
        run(path, tmp_path / "out", "parquet")
    done = run([path, parquet_of(tmp_path / "good.parquet")], tmp_path / "out", "parquet")
    assert done.reasons == {("x.parquet", None): "wrong_type"} and done.counts == {"kept": 10}


@pytest.mark.parametrize("name", ["caption", "note"])
def test_a_column_twice(name, tmp_path):
    columns = {"url": pa.array(URLS), "caption": pa.array(CAPTIONS), "note": pa.array(CAPTIONS)}
    pq.write_table(pa.table([*columns.values(), columns[name]], names=[*columns, name]), tmp_path / "x.parquet")
    with pytest.raises(RecipeError, match=name):
        run(str(tmp_path / "x.parquet"), tmp_path / "out", "parquet")
    done = run([str(tmp_path / "x.parquet"), parquet_of(tmp_path / "good.parquet")], tmp_path / "out", "parquet")
    assert set(done.reasons) == {("x.parquet", None)} and done.counts == {"kept": 10}


def test_columns_that_differ_in_case(tmp_path):
    """Captions need a name then."""
    run(parquet_of(tmp_path / "x.parquet", URL=CAPTIONS, Uid=CAPTIONS), tmp_path / "out", "parquet")
    with pytest.raises(RecipeError, match="differ only in case; name one with columns"):
        run(parquet_of(tmp_path / "y.parquet", Caption=CAPTIONS), tmp_path / "refused", "parquet")


def test_a_row_group_without_rows(tmp_path):
    table = pa.table({"url": URLS, "caption": CAPTIONS})
    with pq.ParquetWriter(tmp_path / "x.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 5), table.slice(0, 0), table.slice(5), table.slice(0, 0)):
            writer.write_table(part)
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 5
    assert run(str(tmp_path / "x.parquet"), tmp_path / "out", "parquet").counts == {"kept": 10}


BEST = {"source": {"columns": {"scores": ["score"]}}, "rules": {"best": {"top": 0.5, "of": "score"}}}
SCORES = {
    "float16": (pa.array(np.linspace(0, 1, 10).astype(np.float16)), 6),
    "inf and NaN": (pa.array([float("inf"), float("-inf"), float("nan"), None, *[1.0] * 6]), 7),
    "int8": (pa.array(range(10), pa.int8()), 6),
    "uint64": (pa.array([2**64 - 1] * 10, pa.uint64()), 10),
}


@pytest.mark.parametrize("kind", SCORES)
def test_scores_of_any_number(kind, tmp_path):
    column, kept = SCORES[kind]
    path = parquet_of(tmp_path / "x.parquet", score=column)
    assert run(path, tmp_path / "out", "parquet", **BEST).counts.get("kept", 0) == kept


def test_scores_that_are_no_numbers(tmp_path):
    """They can be columns, but a top rule refuses them."""
    for values in ([[1.0]] * 10, [{"a": 1}] * 10, [Decimal(1)] * 10, CAPTIONS):
        path = parquet_of(tmp_path / "x.parquet", score=pa.array(values))
        with pytest.raises(RecipeError, match="score"):
            run(path, tmp_path / "out", "parquet", **BEST)


def bad_text():
    _, offsets, data = pa.array(CAPTIONS).buffers()
    return pa.Array.from_buffers(pa.string(), 10, [None, offsets, pa.py_buffer(b"\xff" * data.size)])


COLUMNS = {
    "text that is not UTF-8": bad_text(), "timestamps past 9999": pa.array([2**62] * 10, pa.timestamp("ms")),
    "nanoseconds": pa.array([2**62 + 1] * 10, pa.timestamp("ns")),
    "dates past 9999": pa.array([2**30] * 10, pa.date32()),
    "an unknown zone": pa.array([1] * 10, pa.timestamp("us", "Mars/Phobos")),
    "durations": pa.array([2**62] * 10, pa.duration("ns")),
    "maps": pa.array([[(1, "x")]] * 10, pa.map_(pa.int32(), pa.string())),
    "structs of bytes": pa.array([{"a": b"\xff", "b": [None]}] * 10), "decimals": pa.array([Decimal("1.50")] * 10),
    "views": pa.array(CAPTIONS, pa.string_view()), "big integers": pa.array([2**64 - 1] * 10, pa.uint64()),
}  # fmt: skip


def test_columns_that_nobody_asked_for(tmp_path):
    """The output has them: as columns beside text, and as fields of the JSON beside images."""
    done = run(parquet_of(tmp_path / "x.parquet", **COLUMNS), tmp_path / "texts", "parquet")
    assert done.counts == {"kept": 10}
    assert set(COLUMNS) <= set(pq.read_schema(done.folder / "shards/00000.parquet").names)
    assert pq.read_metadata(done.folder / "shards/00000.parquet").num_rows == 10
    path = tmp_path / "y.parquet"
    pq.write_table(pa.table({"image": IMAGES, "caption": CAPTIONS, **COLUMNS}), path)
    done = run(str(path), tmp_path / "images", "parquet")
    assert done.counts == {"kept": 10}
    assert all(json.loads(members["json"]).keys() >= COLUMNS.keys() for members in loads(done).values())


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})
IMAGE_COLUMNS = {
    "views": (pa.array(IMAGES, pa.binary_view()), {"kept": 10}),
    "structs of views": (pa.StructArray.from_arrays([pa.array(IMAGES, pa.binary_view())], ["bytes"]), {"kept": 10}),
    "a null struct": (pa.array([None, *({"bytes": i} for i in IMAGES[1:])], STRUCT), {"failed": 1, "kept": 9}),
    "paths alone": (pa.array([{"bytes": None, "path": "/etc/passwd"}] * 10, STRUCT), {"failed": 10}),
    "text": (pa.array([b"/etc/passwd"] * 10), {"failed": 10}),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGE_COLUMNS)
def test_image_columns(kind, tmp_path):
    column, counts = IMAGE_COLUMNS[kind]
    columns = {"image": column, "caption": CAPTIONS, "key": ["../../x"] * 5 + ["k"] * 5}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=10 if "views" in kind else 3)
    done = run(str(tmp_path / "x.parquet"), tmp_path / "out", "parquet")
    assert done.counts == counts
    assert len(loads(done)) == counts.get("kept", 0)
    assert not any(b"root:" in data for _, data in done.members)


def test_types_that_differ_between_files(tmp_path):
    """The output has one type for each column; a value that it cannot hold costs its row group, with a reason."""
    big, dates = 2**53 + 1, [2**40] * 4 + [1] * 6
    one = {"hash": pa.array([big] * 10), "when": pa.array(dates, pa.timestamp("s"))}
    other = {"hash": pa.array([0.5] * 10), "when": pa.array([1] * 10, pa.timestamp("ns"))}
    other["url"] = [f"{url}?b" for url in URLS]
    paths = [parquet_of(tmp_path / "a.parquet", **one), parquet_of(tmp_path / "b.parquet", **other)]
    done = run(paths, tmp_path / "out", "parquet")
    assert done.reasons == {("a.parquet", None): "damaged_row_group"} and done.counts == {"kept": 16}
    table = pq.read_table(done.folder / "shards/00000.parquet")
    assert table["hash"].to_pylist()[:6] == [float(big)] * 6 and table["when"].type == pa.timestamp("ns")
