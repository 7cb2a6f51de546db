"""Other tools read a run: webdataset, open_clip's training loader, Hugging Face datasets, img2dataset."""

import json
import math
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from curate.publish.forget.forget import forget
from curate.store.items import Items
from tests.kit import add_member, encode, recipe_of, run_local
from tests.kit.loaders import braces, loader, open_clip_data, shards_of

pytestmark = pytest.mark.thorough


def image(number, form):
    return encode(Image.new("RGB", (24 + number % 5, 20), (number * 5 % 256, number % 256, 99)), form)


def members_of(number, odd):
    """A sample's members as img2dataset writes them, or as several other tools do."""
    caption = f"picture nº {number}, “quoted” 写真\n second line"
    fields = {"url": f"http://x/{number}", "width": 20 + number, "tags": [str(number)]}
    text = caption.encode()
    kinds = [
        {"png": image(number, "PNG"), "txt": text, "json": json.dumps(fields).encode()},
        {"jpg": image(number, "JPEG"), "json": json.dumps(fields | {"caption": caption}).encode()},
        {"JPG": image(number, "JPEG"), "TXT": text},
        {"webp": image(number, "WEBP"), "txt": text, "json": json.dumps(fields).encode()},
        {"jpeg": image(number, "JPEG"), "txt": text, "cls": b"3"},
    ]
    plain = {"jpg": image(number, "JPEG"), "txt": text, "json": json.dumps(fields, indent=2).encode()}
    return kinds[number % 5] if odd else plain


def write_pool(folder, odd):
    """Three tars of 20 samples; with `odd`, most samples from the second tar on are odd."""
    folder.mkdir()
    paths = []
    for shard in range(3):
        paths.append(f"{folder}/{shard:05d}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for i in range(20):
                number = 20 * shard + i
                for suffix, data in members_of(number, odd and shard > 0 and i % 3 > 0).items():
                    add_member(tar, f"{'sub/' if odd and i == 7 else ''}{number:06d}.{suffix}", data)
    return paths


def curated(folder, odd):
    """A run that drops a tenth of the pool, with shards of 16, and the kept captions by name."""
    recipe = recipe_of(
        write_pool(folder / "pool", odd), rules={"tenth": "key[-1] <> '4'"}, output={"rows_per_shard": 16}
    )
    ran = run_local(recipe, folder / "run")
    captions = {
        row["key"]: row["caption"] for row in ran.table("samples").to_pylist() if ran.by_key[row["key"]] == "kept"
    }
    assert len(captions) == 54
    return ran, captions


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return curated(tmp_path_factory.mktemp("odd"), True)


IMAGES = ("jpg", "jpeg", "png", "webp")


# ---------------------------------------------------------------- webdataset
def test_webdataset_reads_every_sample(odd):
    ran, captions = odd
    found = {}
    for sample in webdataset.WebDataset(braces(ran), shardshuffle=False).decode("pil"):
        (picture,) = (sample[suffix] for suffix in IMAGES if suffix in sample)
        picture.load()
        assert picture.mode == "RGB" and picture.size[1] == 20
        assert len(sample["json"]["uid"]) == 32 and "captions" not in sample["json"]
        found[sample["__key__"]] = sample["txt"]
    assert found == captions
    assert {"cls", "jpeg", "webp", "png"} <= {name.partition(".")[2] for name, _ in ran.members}


# ---------------------------------------------------------------- open_clip
def test_open_clips_loaders_give_every_sample_once_an_epoch(odd):
    """Their number comes from sizes.json."""
    ran, captions = odd
    assert open_clip_data.get_dataset_size(braces(ran)) == (len(captions), 4)
    assert open_clip_data.get_dataset_size("::".join(shards_of(ran)[:2])) == (32, 2)
    data, orders = loader(ran, 9, True), []
    assert (data.dataloader.num_samples, data.dataloader.num_batches) == (54, 6)
    for epoch in range(2):
        data.set_epoch(epoch)
        batches = list(data.dataloader)
        assert {tuple(images.shape) for images, _ in batches} == {(9, 8, 8, 3)}
        orders.append([text for _, batch in batches for text in batch])
        assert sorted(orders[-1]) == sorted(captions.values())
    assert orders[0] != orders[1]
    evaluated = [text for _, batch in loader(ran, 10, False).dataloader for text in batch]
    assert sorted(evaluated) == sorted(captions.values())


# ---------------------------------------------------------------- Hugging Face
def hugging_face(monkeypatch):
    """The library, without access to the Hub."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_reads_every_sample(streaming, tmp_path, monkeypatch):
    datasets = hugging_face(monkeypatch)
    ran, captions = curated(tmp_path, False)
    options = {"data_files": {"train": shards_of(ran)}, "split": "train", "cache_dir": str(tmp_path / "cache")}
    found = {}
    for row in datasets.load_dataset("webdataset", streaming=streaming, **options):
        assert row["jpg"].size[1] == 20 and len(row["json"]["uid"]) == 32
        assert row["json"]["tags"] == [row["json"]["url"].rpartition("/")[2]]
        found[row["__key__"]] = row["txt"]
    assert found == captions


def test_hugging_face_reads_the_folder_by_its_card(odd, tmp_path, monkeypatch):
    """The card lists the sample files and all columns: no image is missing, and no table counts as samples."""
    datasets = hugging_face(monkeypatch)
    ran, captions = odd
    found = datasets.load_dataset(str(ran.folder), cache_dir=str(tmp_path))
    assert list(found) == ["train"]
    assert {row["__key__"]: row["txt"] for row in found["train"]} == captions
    for row in found["train"]:
        assert sum(row[suffix] is not None for suffix in IMAGES if suffix in row) == 1
        assert len(row["json"]["uid"]) == 32


def test_hugging_face_reads_numbers_as_they_are(tmp_path, monkeypatch):
    """Floats to their last bit, NaN, and large integers; the type `json` rounds to ten digits, and turns NaN into null."""
    datasets = hugging_face(monkeypatch)
    floats = [0.1 + 0.2, 1e-7, math.nan, math.inf, 1 / 3, 5e-324, 1e300, None]
    large = [2**63 - 1, -(2**63), 2**53 + 1, 0, 7, 8, 9, 10]
    wanted = [
        {"score": score, "n": n, "hash": 2**64 - 1 - n % 9, "boxes": [[score or 0.1]], "more": {"p": 2 / 3}, "tag": "ü"}
        for score, n in zip(floats, large, strict=True)
    ]
    wanted[-1] |= {"tag": None, "more": None}
    wanted[0].pop("boxes")
    with tarfile.open(tmp_path / "pool.tar", "w") as tar:
        for number, fields in enumerate(wanted):
            members = {"png": image(number, "PNG"), "txt": b"a b", "json": json.dumps(fields).encode()}
            for suffix, data in members.items():
                add_member(tar, f"{number:06d}.{suffix}", data)
    output = {"rows_per_shard": 3, "json_columns": ["aspect"]}
    run = run_local(recipe_of(str(tmp_path / "pool.tar"), output=output), tmp_path / "run")
    rows = datasets.load_dataset(str(run.folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == len(wanted)
    for row in rows:
        sides = row["png"].size
        expected = wanted[int(row["__key__"])] | {"uid": row["json"]["uid"], "aspect": max(sides) / min(sides)}
        assert repr(row["json"]) == repr({name: expected.get(name) for name in row["json"]})
        assert expected.keys() <= row["json"].keys()


def test_hugging_face_reads_what_is_there_now(odd, tmp_path, monkeypatch):
    """The card's version separates folders of one name in its cache, and a run before and after forgetting."""
    datasets = hugging_face(monkeypatch)
    ran, captions = odd
    folder = shutil.copytree(ran.folder, tmp_path / "run")
    uids = ran.table("decisions").filter(ran.table("decisions")["kept"])["uid"].to_pylist()
    for gone in range(3):
        if gone:
            forget(str(folder), Items.of({"uid": [bytes.fromhex(uids[gone])]}))
        found = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(found) == len(captions) - gone


# ---------------------------------------------------------------- img2dataset
def test_sidecars_read_as_img2datasets(odd):
    """As its users do: the successes of all sidecars, whose keys name members of the tar."""
    ran, captions = odd
    frames = []
    for path in sorted(ran.folder.glob("shards/*.parquet")):
        frame = pq.read_table(path).to_pandas()
        stats = json.loads(Path(str(path).replace(".parquet", "_stats.json")).read_text())
        assert stats["successes"] == stats["status_dict"]["success"] == (frame["status"] == "success").sum()
        tar = webdataset.WebDataset(str(path).replace(".parquet", ".tar"), shardshuffle=False)
        assert frame["key"].tolist() == [sample["__key__"] for sample in tar]
        assert frame["error_message"].isna().all()
        frames += frame.to_dict("records")
    assert {row["key"]: row["caption"] for row in frames} == captions
    assert all(row["width"] >= 24 and row["height"] == 20 for row in frames)
