"""Downloads equal img2dataset's own for the same list, servers, and options."""

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, replace
from hashlib import sha512
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.download.shard_names import OUTCOMES
from curate.pool.urls.format import UrlsInput
from tests.kit import encode, picture
from tests.kit.url_lists import NETWORK, recipe
from tests.kit.web import Web, running

pytestmark = pytest.mark.slow

pytest.importorskip("img2dataset")

SIZE = 100
SIZES = ("width", "height", "original_width", "original_height")
OPTIONS = {
    "as_it_came": {},
    "limits": {"image_size": SIZE, "min_image_size": 60, "max_aspect_ratio": 3.0, "max_image_area": 15_500.0},
    "not_enlarged": {
        "image_size": SIZE, "resize_mode": "keep_ratio_largest", "resize_only_if_bigger": True, "skip_reencode": True,
        "downscale_interpolation": "linear", "compute_hash": "md5",
    },
    "png": {
        "image_size": SIZE, "resize_mode": "center_crop", "encode_format": "png", "encode_quality": 3,
        "extract_exif": False, "compute_hash": None,
    },
    "webp": {
        "image_size": SIZE, "resize_mode": "keep_ratio", "encode_format": "webp", "encode_quality": 80,
        "upscale_interpolation": "cubic", "compute_hash": "sha512", "verify_hash": ["hash", "sha512"],
    },
    "no_resizing": {"image_size": SIZE, "resize_mode": "no", "disallowed_header_directives": ["nofollow"]},
}  # fmt: skip
# Its own command, without the processes of its logger and distributor
THEIRS = """
import importlib, json, sys
main = importlib.import_module("img2dataset.main")
main.LoggerProcess = type("", (), {"__init__": lambda *_: None, "start": lambda _: None, "join": lambda _: None})
main.multiprocessing_distributor = lambda _, downloader, reader, *__: [downloader(shard) for shard in reader]
for options in json.load(sys.stdin):
    main.download(**options)
"""
CAPTIONS = [
    "a plain one", "two\nlines\r\nand a tab\t", "ünïcödé 日本 🐕", "", None, 'quo"te \\ back', "  <b>&amp;</b> ",
]  # fmt: skip
REFUSED = {  # by ours alone, whatever the options
    "header/TDM-Reservation=1",
    "header/Content-Usage=train-ai=n",
    "header/X-Robots-Tag=curate:%20nofollow,%20noai",
    "image/ppm",  # OpenCV knows more formats than Pillow's that are decoded here
}
AGREED = [
    "text", "status/404", "header/X-Robots-Tag=nofollow,%20NoAI", "header/X-Robots-Tag=other:%20noai",
    "to//image/png",
]  # fmt: skip


def images():
    plain, exif = picture(3, 120), Image.Exif()
    exif[274], exif[271], exif[270] = 6, "Maker  ", "wörds"
    alpha = plain.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(plain.size))
    found = {name: encode(plain, name.upper()) for name in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "ppm")}
    found |= {"cmyk": encode(plain.convert("CMYK")), "gray": encode(plain.convert("L")), "alpha": encode(alpha, "PNG")}
    found |= {"exif": encode(plain.resize((150, 90)), exif=exif), "wide": encode(plain.resize((300, 50)))}
    found |= {"small": encode(plain.resize((40, 70))), "large": encode(plain.resize((160, 130)))}
    found["palette"] = encode(plain.convert("P"), "PNG")
    found["deep"] = encode(Image.fromarray((np.arange(9000) * 7).reshape(90, 100).astype(np.uint16)), "PNG")
    return found | {"cut": found["jpeg"][:2000], "a": found["jpeg"]}


@dataclass(frozen=True)
class Shard:
    """A shard by URL without host: members by suffix, rows of its Parquet file, its schema, and its statistics."""

    members: dict[str, dict[str, bytes]]
    rows: dict[str, dict[str, Any]]
    schema: pa.Schema
    statistics: dict[str, Any]

    @classmethod
    def read(cls, folder, web):
        (path,) = folder.glob("*.tar")
        table = pq.read_table(path.with_suffix(".parquet"))
        rows = {row["url"].removeprefix(web.url("")): row for row in table.to_pylist()}
        names = {row["key"]: name for name, row in rows.items()}
        members = {}
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                key, _, suffix = member.name.partition(".")
                data = tar.extractfile(member)
                assert data is not None
                members.setdefault(names[key], {})[suffix] = data.read().replace(key.encode(), b"KEY")
        for row in rows.values():
            row["key"] = row["key"][-2:]  # the place in the shard
        statistics = json.loads(path.with_name(f"{path.stem}_stats.json").read_bytes())
        return cls(members, rows, table.schema, statistics)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("img2dataset")
    with running(Web(images())) as web:
        paths = [*(f"image/{name}" for name in web.images), *AGREED, *sorted(REFUSED - {"image/ppm"})]
        rows = range(len(paths))
        hashes = [sha512(web.images.get(path.rpartition("/")[2], web.images["a"])).hexdigest() for path in paths]
        columns = {
            "url": [web.url(path) for path in paths], "caption": [CAPTIONS[row % len(CAPTIONS)] for row in rows],
            "similarity": pa.array([row / 7 for row in rows], pa.float32()), "flag": [row % 2 == 0 for row in rows],
            "punsafe": [None if row % 3 else row / 9 for row in rows], "number": pa.array(rows, pa.int8()),
            "NSFW": ["UNLIKELY" if row % 2 else None for row in rows],
            "license": pa.array(["cc0" for _ in rows], pa.large_string()),
            "hash": [digest if row % 4 else "other" for row, digest in enumerate(hashes)],
        }  # fmt: skip
        table = pa.table(columns)
        pq.write_table(table, folder / "list.parquet")
        others = [name for name in table.column_names if name not in ("url", "caption")]
        common = {"url_list": f"{folder}/list.parquet", "input_format": "parquet", "caption_col": "caption"}
        common |= {"output_format": "webdataset", "thread_count": 8, "number_sample_per_shard": 99, "timeout": 5}
        theirs = [
            {"disable_all_reencoding": "image_size" not in own, "output_folder": f"{folder}/theirs/{name}"}
            | {"save_additional_columns": [one for one in others if one != own.get("verify_hash", [""])[0]], **own}
            for name, own in OPTIONS.items()
        ]
        (folder / "theirs").mkdir()
        given = json.dumps([common | one for one in theirs]).encode()
        subprocess.run([sys.executable, "-c", THEIRS], input=given, env=os.environ, check=True, capture_output=True)
        found = {}
        for name, own in OPTIONS.items():
            network = NETWORK | {"attempts": 1, "max_seconds": 10}
            made = recipe(folder / "list.parquet", {"network": network, "number_sample_per_shard": 99, **own})
            source = made.input[0].placed_in(f"{folder}/ours/{name}")
            UrlsInput().fetch(source, UrlsInput().plan(source, (), False).parts)
            pair = (folder / "ours" / name / "pool", folder / "theirs" / name)
            found[name] = Shard.read(pair[0], web), Shard.read(pair[1], web)
        yield found


def without_sizes(shard):
    """A shard as img2dataset leaves it without encoding: images are named .jpg, and have no sizes."""
    members, rows = {}, {path: row | dict.fromkeys(SIZES) for path, row in shard.rows.items()}
    for path, files in shard.members.items():
        fields = json.loads(files["json"]) | dict.fromkeys(SIZES)
        image = next(data for suffix, data in files.items() if suffix not in ("json", "txt"))
        members[path] = {"jpg": image, "json": json.dumps(fields, indent=4).encode(), "txt": files["txt"]}
    return replace(shard, members=members, rows=rows)


def test_images_that_stay_as_they_came_have_sizes_and_names(shards):
    """From their header, after EXIF rotation, and from their format; their bytes equal img2dataset's."""
    ours, theirs = shards["as_it_came"]
    for path, files in ours.members.items():
        [suffix] = files.keys() - {"json", "txt"}
        image = Image.open(io.BytesIO(files[suffix]))
        assert files[suffix] == theirs.members[path]["jpg"]
        assert suffix == {"JPEG": "jpg"}.get(image.format or "", str(image.format).lower())
        fields, sides = json.loads(files["json"]), image.size[:: -1 if path == "image/exif" else 1]
        assert [fields[name] for name in SIZES] == [ours.rows[path][name] for name in SIZES] == [*sides, *sides]
    assert {next(iter(files.keys() - {"json", "txt"})) for files in ours.members.values()} == {
        *("jpg", "png", "webp", "gif", "bmp", "tiff")
    }


@pytest.mark.parametrize("name", OPTIONS)
def test_shards_are_those_of_img2dataset(shards, name):
    """Samples' members are equal except for keys; rows and types in the Parquet file are equal except for error messages."""
    ours, theirs = shards[name]
    if name == "as_it_came":
        ours = without_sizes(ours)
    refused = REFUSED | ({"text"} if name == "as_it_came" else set())  # which takes any bytes there
    came = {path for path, row in theirs.rows.items() if row["status"] == "success"}
    assert set(ours.members) == came - refused and len(came) > 9
    for path in ours.members:
        assert list(ours.members[path]) == list(theirs.members[path])
        for suffix, data in ours.members[path].items():
            assert data == theirs.members[path][suffix], (path, suffix)
    of_ours = [field for field in ours.schema if field.name not in OUTCOMES.names]
    assert [(f.name, f.type) for f in of_ours] == [(f.name, f.type) for f in theirs.schema]
    assert ours.schema.names[-len(OUTCOMES) :] == OUTCOMES.names
    for path, row in theirs.rows.items():
        names = set(row) if path in came - refused else set(row) - {"error_message", "sha256", "md5", "exif"}
        if path in refused:
            assert ours.rows[path]["status"] != "success"
            continue
        for column in names:
            assert ours.rows[path][column] == row[column], (path, column)
    assert list(ours.statistics)[: len(theirs.statistics)] == list(theirs.statistics)
    assert ours.statistics["count"] == theirs.statistics["count"] == len(ours.rows)
