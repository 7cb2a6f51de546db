"""Samples that img2dataset could not fetch are rows, by the Parquet file beside each tar, and have their own limit."""

from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.api import Run
from curate.base.errors import RunError
from curate.cli.summary import summary
from curate.pool.formats.missing import read_missing
from curate.pool.plan import make_plan
from curate.read.errors import InputError
from tests import kit
from tests.kit import conserved
from tests.kit.range_server import serving_ranges

pytestmark = pytest.mark.thorough

UID = "0123456789abcdef" * 2
NOT_FOUND = "HTTP Error 404: Not Found"


def listed(samples, lost):
    """Return the table that img2dataset writes beside a tar."""
    names = ("url", "caption", "key", "status", "error_message", "uid")
    came = [{"url": s.url, "caption": s.caption, "key": s.key, "status": "success", "width": 48} for s in samples]
    return pa.Table.from_pylist(
        [*lost, *came], pa.schema([*((name, pa.string()) for name in names), ("width", pa.int32())])
    )


def lost_rows(shard):
    """Return the rows of two samples that a shard lacks."""
    common = {"caption": f"a lost picture {shard}"}
    return [
        {"key": f"{shard}9990", "url": f"https://x/lost/{shard}/0", "status": "failed_to_download", "error_message": NOT_FOUND, **common},
        {"key": f"{shard}9991", "url": f"https://x/lost/{shard}/1", "status": "failed_to_resize", "error_message": "image decoding error",
         "uid": f"{shard}{UID[1:]}", **common},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def samples():
    return kit.make_samples(24)[:24]


def write_pool(folder, samples, shards=3):
    path = kit.write_tars(folder, samples, shards)
    for number, some in enumerate(kit.split(samples, shards)):
        pq.write_table(listed(list(some), lost_rows(number)), folder / f"{number:05d}.parquet")
    return path


@pytest.fixture(scope="module")
def ran(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("missing")
    measure = {"image": {"phash": True}, "language": {}}
    recipe = kit.recipe_of(write_pool(folder / "pool", samples), measure=measure, max_failed=0.0)
    return kit.run_local(recipe, folder / "run")


def test_they_have_rows_and_a_verdict(ran, samples):
    conserved(ran)
    assert ran.counts == {"failed": 6, "kept": 24}
    rows = {row["key"]: row for row in ran.table("samples").to_pylist()}
    assert len(rows) == 30 and {key for key, row in rows.items() if row["status"] == "ok"} == {s.key for s in samples}
    lost = {key: row for key, row in rows.items() if row["status"] != "ok"}
    errors = (f"failed_to_download: {NOT_FOUND}", "failed_to_resize: image decoding error")
    for shard in range(3):
        for row, expected in zip((lost[f"{shard}{key}"] for key in ("9990", "9991")), lost_rows(shard), strict=True):
            assert row["status"] == "missing_sample" and row["error"] in errors and row["width"] is None
            assert (row["url"], row["uid"]) == (expected["url"], expected.get("uid"))
            assert Path(row["shard"]).name == f"0000{shard}.tar"
    members = ran.table("members").to_pylist()
    assert {len(row["suffix"] or []) for row in members} == {0, 3}


def test_they_are_explained_and_listed(ran):
    run = Run(str(ran.folder))
    for name in ("19991", "https://x/lost/1/1", f"1{UID[1:]}"):
        text = str(run.explain(name))
        assert "verdict: failed" in text and "missing_sample" in text
        assert "failed_to_resize: image decoding error" in " ".join(text.split())
    assert "failed: 6 missing_sample" in summary(str(ran.folder), 1.0)
    [row] = run.sql("failures").to_pylist()
    assert (row["kind"], row["reason"], row["count"], row["share"]) == ("sample", "missing_sample", 6, 0.2)
    assert row["detail"] == f"failed_to_download: {NOT_FOUND}" and "09990" in row["example"]


def test_whatever_the_sharding_and_the_runner(ran, samples, tmp_path):
    """One unit of three tars gives the same as three units, with Beam as without."""
    recipe = kit.recipe_of(write_pool(tmp_path / "pool", samples), max_failed=0.0)
    assert len(make_plan(recipe, unit_size=1 << 30).units) == 1
    done = kit.run_beam(recipe, tmp_path / "beam")
    conserved(done)
    assert done.verdicts == ran.verdicts and done.kept == ran.kept


def test_a_limit_of_their_own(samples, tmp_path):
    path = write_pool(tmp_path / "pool", samples)
    recipe = kit.recipe_of(path, max_failed=0.0, max_missing=0.19)
    with pytest.raises(RunError) as error:
        kit.run_local(recipe, tmp_path / "run")
    message = str(error.value)
    assert "6 of 30 samples (20.0%) were never downloaded, but max_missing is 0.19" in message
    assert message.endswith("--set max_missing=0.21") and "max_failed" not in message
    kit.run_local(recipe.model_copy(update={"max_missing": 0.2}), tmp_path / "run")


def test_they_do_not_dilute_other_failures(samples, tmp_path):
    """One of 24 samples in the tars is damaged: the share is 1 / 24, however many were not downloaded."""
    damaged = [replace(samples[0], image=b"no image"), *samples[1:]]
    path = write_pool(tmp_path / "pool", damaged)
    with pytest.raises(RunError, match=r"1 of 24 samples \(4.2%\) could not be read, but max_failed is 0.04"):
        kit.run_local(kit.recipe_of(path, max_failed=0.04), tmp_path / "run")


def test_what_came_is_not_counted_twice(samples, tmp_path):
    """A sample in the tar counts, even if the sidecar calls it failed, or is not one of img2dataset's."""
    path = kit.write_tars(tmp_path / "pool", samples, 2)
    rows = [row | {"status": "failed_to_download"} for row in listed(samples[:12], []).to_pylist()]
    pq.write_table(listed([], rows), tmp_path / "pool/00000.parquet")
    pq.write_table(pa.table({"key": ["x"], "state": ["failed"]}), tmp_path / "pool/00001.parquet")
    done = kit.run_local(kit.recipe_of(path), tmp_path / "run")
    conserved(done)
    assert done.counts == {"kept": 24} and len(done.table("failures")) == 0


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "pages", "utf8"])
def test_a_damaged_sidecar_loses_nothing(damage, samples, tmp_path):
    path = write_pool(tmp_path / "pool", samples)
    file = tmp_path / "pool/00001.parquet"
    data = file.read_bytes()
    bad = listed([], lost_rows(1)[:1]).to_pydict() | {"url": pa.array([b"\xff"]).view(pa.string())}
    pq.write_table(pa.table(bad), file)
    pages = data[:4] + b"\xff" * 2000 + data[2004:]
    changed = {"cut": data[:-20], "empty": b"", "text": b"<html>" * 99, "pages": pages, "utf8": file.read_bytes()}
    file.write_bytes(changed[damage])
    done = kit.run_local(kit.recipe_of(path, max_failed=0.0, max_failed_files=0.0), tmp_path / "run")
    conserved(done)
    assert done.counts == {"failed": 4, "kept": 24}
    [row] = [row for row in done.table("failures").to_pylist() if row["row"] is None]
    assert row["reason"] == "damaged_sidecar" and row["shard"].endswith("00001.tar")
    assert "00001.parquet: " in row["detail"]


def test_damage_of_both_is_told(samples, tmp_path):
    path = write_pool(tmp_path / "pool", samples, 1)
    tar = tmp_path / "pool/00000.tar"
    tar.write_bytes(tar.read_bytes()[:-15_000])
    (tmp_path / "pool/00000.parquet").write_bytes(b"PAR1")
    done = kit.run_local(kit.recipe_of(path, max_failed=1.0, max_failed_files=1.0), tmp_path / "run")
    [row] = [row for row in done.table("failures").to_pylist() if row["row"] is None]
    assert row["reason"] == "truncated_tar" and "00000.parquet: " in row["detail"]


def test_a_sidecar_is_part_of_its_unit(samples, tmp_path):
    """If a sidecar changes, only its unit is measured again."""
    path = write_pool(tmp_path / "pool", samples)
    recipe = kit.recipe_of(path)
    keys = [unit.key for unit in make_plan(recipe, unit_size=1).units]
    pq.write_table(listed(samples[:8], lost_rows(1)[:1]), tmp_path / "pool/00001.parquet")
    others = [unit.key for unit in make_plan(recipe, unit_size=1).units]
    assert [a == b for a, b in zip(keys, others, strict=True)] == [True, False, True]
    (tmp_path / "pool/00002.parquet").unlink()
    units = make_plan(recipe, unit_size=1).units
    assert units[2].parts[0].listing_fingerprint == "" and units[2].key != others[2]
    contents = make_plan(recipe, content=True, unit_size=1).units
    assert contents[0].parts[0].listing_fingerprint.partition(", ")[2].startswith("xxh3:")
    done = kit.run_local(recipe, tmp_path / "run")
    assert done.counts == {"failed": 3, "kept": 24}


def test_wherever_the_tars_are(samples, tmp_path):
    """An object store lists folders; a web server does not."""
    write_pool(tmp_path / "pool", samples)
    (tmp_path / "pool/00002.parquet").unlink()
    store = fsspec.filesystem("memory")
    store.put(f"{tmp_path}/pool/", "/missing/", recursive=True)
    with serving_ranges(tmp_path) as served:
        for path in ("memory://missing/*.tar", f"{served.url}/pool/{{00000..00002}}.tar"):
            recipe = kit.recipe_of(path)
            parts = [part for unit in make_plan(recipe).units for part in unit.parts]
            assert [bool(part.listing_fingerprint) for part in parts] == [True, True, False]
            done = kit.run_local(recipe, tmp_path / path.partition(":")[0])
            assert done.counts == {"failed": 4, "kept": 24}
    store.rm("/missing", recursive=True)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_read_missing(kind, tmp_path):
    """Missing columns, and those that are not text, are null; rows with a null status are ignored."""
    texts = {
        "key": ["a", "b", "c", None], "status": ["failed_to_download", "success", None, "failed_to_resize"],
        "alt": ["A", "B", "C", "D"], "error_message": ["two\nlines", None, None, None],
    }  # fmt: skip
    columns = {name: pa.array(values, kind) for name, values in texts.items()}
    pq.write_table(pa.table(columns | {"url": [1, 2, 3, 4]}), tmp_path / "x.parquet")
    found = read_missing(f"{tmp_path}/x.tar", {}, ["z"], "alt").to_pylist()
    common = {"url": None, "uid": None, "status": "missing_sample"}
    assert found == [
        {"key": "a", "caption": "A", "error": "failed_to_download: two lines", **common},
        {"key": None, "caption": "D", "error": "failed_to_resize", **common},
    ]
    assert len(read_missing(f"{tmp_path}/x.tar", {}, ["a"], "alt")) == 1


def test_a_file_beside_a_tar_that_stands_for_gigabytes(tmp_path):
    """A file of 24 kB would unpack to 10,000 messages of a megabyte."""
    message = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 1_000_000]))
    rows = {"key": [f"{i:09d}" for i in range(10_000)], "status": ["failed"] * 10_000, "error_message": message}
    pq.write_table(pa.table(rows), tmp_path / "0.parquet", store_schema=False)
    with pytest.raises(InputError, match="unpacked, it has more than 268,435,456 bytes"):
        read_missing(str(tmp_path / "0.tar"), {}, [], "caption")
