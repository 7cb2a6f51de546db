"""URLs → curate → img2dataset → curate, with img2dataset's own command and a local server."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.pool.formats.webdataset import WebdatasetInput, WebdatasetSource
from curate.publish.forget.forget import forget
from curate.store.items import Items
from tests.kit import curate, encode, picture, recipe_of, run_local
from tests.kit.web import Web, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("img2dataset") is None, reason="img2dataset is not installed"),
]

ROWS = 60
MISSING = {3, 9, 17, 23, 31, 38, 41, 56}  # pictures that the server does not have: whatever its port, some are sampled
BROKEN = {12}  # that are none


@pytest.fixture(scope="module")
def server():
    images = {
        f"{i}.jpg": b"<html>" if i in BROKEN else encode(picture(i, 300)) for i in range(ROWS) if i not in MISSING
    }
    with running(Web(images)) as web:
        yield web.url("image")


@pytest.fixture(scope="module")
def stages(server, tmp_path_factory):
    """A run over URLs, img2dataset's output for its shards, and a run over that."""
    folder = tmp_path_factory.mktemp("img2dataset")
    numbers = range(ROWS)
    columns = {
        "URL": [f"{server}/{i}.jpg" for i in numbers],
        "TEXT": [f"a picture of number {i}" if i % 10 else "short" for i in numbers],
        "similarity": pa.array([i / ROWS for i in numbers], pa.float32()),
        "NSFW": ["UNSURE" if i % 3 == 0 else None for i in numbers],
        "punsafe": pa.array([i / 7 for i in numbers], pa.float32()),
    }
    urls = curate(
        folder, pa.table(columns), rules={"words": "words > 1"}, sample={"rows": 40}, output={"rows_per_shard": 25}
    )
    command = f"{sys.executable} -m img2dataset.main --url_list {urls.folder}/shards --input_format parquet"
    command += (
        f" --url_col URL --caption_col TEXT --output_format webdataset --output_folder {folder}/images --thread_count 4"
    )
    command += " --number_sample_per_shard 20 --image_size 256 --save_additional_columns"
    columns = '["uid","similarity","NSFW","punsafe"]'
    subprocess.run([*command.split(), columns], check=True, capture_output=True, timeout=600)
    join = {"path": f"{urls.folder}/shards/*.parquet", "on": "uid", "columns": {"input_probability": "probability"}}
    source = {"join": join, "columns": {"similarity": "float"}}
    rules = {"near": "similarity > 0.1", "side": "min_side >= 256"}
    recipe = recipe_of(f"{folder}/images/*.tar", source=source, rules=rules, sample={"rows": 20})
    return urls, folder / "images", run_local(recipe, folder / "images-run")


def rows_of(folder):
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_uids_agree(stages):
    urls, images, curated = stages
    assert len(list(images.glob("*.tar"))) >= 3
    chosen = [row["uid"] for row in urls.table("decisions").to_pylist() if row["kept"]]
    sidecars = {row["uid"]: row for row in rows_of(images)}
    assert sorted(sidecars) == sorted(chosen)
    samples = curated.table("samples").to_pylist()
    found = {row["uid"] for row in samples if row["status"] == "ok"}
    assert found == {uid for uid, row in sidecars.items() if row["status"] == "success"}
    assert 40 - len(MISSING) - 1 <= len(found) < 40
    failures = curated.table("failures").to_pylist()
    lost = {uid: f"{row['status']}: {row['error_message']}" for uid, row in sidecars.items() if uid not in found}
    assert {row["uid"]: row["detail"] for row in failures} == lost and any("404" in detail for detail in lost.values())
    assert {row["reason"] for row in failures} == {"missing_sample"}
    listed = {row["uid"]: (row["url"], row["caption"]) for row in urls.table("samples").to_pylist()}
    assert all((row["url"], row["caption"]) == listed[row["uid"]] for row in samples)


def test_weights_multiply_by_a_join(stages):
    urls, _, curated = stages
    rows = rows_of(curated.folder / "shards")
    reached = sum(rule in (None, "sample") for rule in curated.table("decisions")["rule"].to_pylist())
    assert len(rows) == 20 < reached
    before = 40 / (urls.counts["kept"] + urls.counts["sample"])
    assert {row["probability"] for row in rows} == {before * (20 / reached)}
    assert {row["input_probability"] for row in rows} == {before}


def test_its_columns_stay_and_digests_are_of_what_is_stored(stages):
    """img2dataset's sha256 is of the original image, before resizing."""
    _, images, curated = stages
    theirs = {row["uid"]: row for row in rows_of(images)}
    ours = rows_of(curated.folder / "shards")
    stored = {name.partition(".")[0]: data for name, data in curated.members if name.endswith(".jpg")}
    stated = {name.partition(".")[0]: json.loads(data) for name, data in curated.members if name.endswith(".json")}
    for row in ours:
        came, fields = theirs[row["uid"]], stated[row["key"]]
        assert all(row[name] == came[name] for name in ("NSFW", "punsafe", "similarity", "original_width", "exif"))
        assert row["sha256"] == hashlib.sha256(stored[row["key"]]).hexdigest() == fields["sha256"]
        assert row["original_sha256"] == came["sha256"] == fields["original_sha256"] != row["sha256"]
        assert fields["status"] == "success" and fields["uid"] == row["uid"] and fields["original_width"] >= 300
    victims = Items.of({"sha256": [bytes.fromhex(ours[0]["original_sha256"])]})
    result = forget(str(curated.folder), victims, dry_run=True)
    assert (result.rows.requested, result.rows.kept, len(result.absent)) == (1, 1, 0)


def test_images_that_it_made_squares_are_noticed(stages):
    path = f"{stages[1]}/00000.tar"
    noticed = WebdatasetInput().resized(WebdatasetSource(name="pool", format="webdataset", path=path), path)
    assert re.match(r"\d+ of its first \d+ images were resized, for example from 30\d x 30\d to 256 x 256", noticed)
