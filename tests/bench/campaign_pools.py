"""Pools of any size for `bench_campaign`, whose rows are functions of their numbers: text in Parquet, and images in tars.

A text pool has files of a million rows in row groups of 100,000: `url`, `caption`, `clip_score` (float32, random). Tars have
5,000 samples: a JPEG of 256 pixels and some 22 KB, a caption, img2dataset's json. Both take a minute of CPU for 50M rows or
for 10 GB.

What is real: the number of rows, their sizes and how badly they compress; words, so what matches which entry; that all
images are valid JPEGs whose decoding costs what it costs, and that their bytes and perceptual hashes differ; that what is
a duplicate lies anywhere in the pool. Every tenth row is a copy of another: of text the same URL and caption; of images in
turn all of the sample, or the picture alone with other bytes after its end, another URL and caption.

What is not: a caption joins the first half of a real one with the last half of another, and every fourth has an entry of
the metadata besides, each as often as any other; a picture is stripes of 64 pictures of noise; nobody stands behind the
URLs; files lie on a local disk, and the system keeps them in memory as far as it goes; nothing is damaged; groups of
duplicates have two or three rows, where a web crawl has some of thousands.
"""

import gzip
import io
import json
import re
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from curate.base.numeric.elementary import mix64
from curate.tar.writer import TarWriter

FILE_ROWS, GROUP_ROWS = 1_000_000, 100_000
TAR_SAMPLES = 5_000
SAMPLE_BYTES = 24_400  # of a tar, about
_HOSTS, _PICTURES, _SIDE = 997, 64, 256
U64 = npt.NDArray[np.uint64]


def write_text(folder, data, rows):
    """Write a text pool of so many rows, and return the recipe that keeps a fifth of it.

    `data` holds `laion_urls_10k.parquet` (column TEXT) and `metadata_396k.json.gz`.
    """
    texts = _read_texts(data)
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        numbers = np.arange(first, min(rows, first + FILE_ROWS), dtype=np.uint64)
        ids = np.where(numbers % 10 == 9, mix64(numbers) % rows, numbers)
        scores = (mix64(numbers + np.uint64(1 << 40)) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        table = pa.table({"url": _urls(ids), "caption": _captions(texts, ids), "clip_score": scores})
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=GROUP_ROWS, compression="zstd")
    return {
        "input": {"name": "pool", "format": "parquet", "path": f"{folder}/*.parquet"},
        "match": {"metadata": str(data / "metadata_396k.json.gz")},
        "rules": {"words": "words > 2", "score": {"top": 0.8, "of": "clip_score"}},
        "dedup": {"by": ["uid"]},
        "balance": {"rows": rows // 5},
    }


def write_tars(folder, data, samples):
    """Write tars of so many samples, and return the recipe that keeps a fifth of them; `data` as of `write_text`."""
    texts = _read_texts(data)
    for number, first in enumerate(range(0, samples, TAR_SAMPLES)):
        numbers = np.arange(first, min(samples, first + TAR_SAMPLES), dtype=np.uint64)
        pictures = np.where(numbers % 10 == 9, mix64(numbers) % samples, numbers)
        ids = np.where(numbers % 20 == 9, pictures, numbers)  # else a copy has the picture alone
        columns = (_urls(ids).to_pylist(), _captions(texts, ids).to_pylist(), _jpegs(pictures), ids.tolist())
        with open(folder / f"{number:05d}.tar", "wb") as file, TarWriter(file) as tar:
            for i, (url, caption, jpeg, sample) in enumerate(zip(*columns, strict=True)):
                key = f"{number:05d}{i:04d}"
                fields = {"url": url, "caption": caption, "key": key, "status": "success", "error_message": None}
                sides = dict.fromkeys(("width", "height", "original_width", "original_height"), _SIDE)
                tar.add(f"{key}.jpg", jpeg + b"%d" % sample)
                tar.add(f"{key}.json", json.dumps({**fields, **sides}).encode())
                tar.add(f"{key}.txt", caption.encode())
    return {
        "input": {"name": "pool", "format": "webdataset", "path": f"{folder}/*.tar"},
        "measure": {"image": {"phash": True}},
        "rules": {"words": "words > 2", "size": "width >= 200 AND height >= 200"},
        "dedup": {"by": ["uid", "sha256", {"phash": {"distance": 4}}]},
        "sample": {"rows": samples // 5},
    }


def _urls(ids):
    hosts, names = (pa.array(numbers).cast(pa.string()) for numbers in (ids % _HOSTS, mix64(ids)))
    return pc.binary_join_element_wise("https://cdn", hosts, ".example.com/images/", names, ".jpg", "")


def _read_texts(data):
    """Return the first and the last halves of real captions, and the metadata's entries between thrice as many blanks."""
    texts = pq.read_table(data / "laion_urls_10k.parquet", columns=["TEXT"])["TEXT"].drop_null().to_pylist()
    words = [text.split() for text in texts]
    entries = json.loads(gzip.decompress((data / "metadata_396k.json.gz").read_bytes()))
    return [
        pa.array(" ".join(some[: (len(some) + 1) // 2]) for some in words),
        pa.array(" ".join(some[(len(some) + 1) // 2 :]) for some in words),
        pa.array(text for entry in entries for text in (entry, "", "", "")),
    ]


def _captions(texts, ids):
    chosen = (
        some.take(pa.array(mix64(ids + np.uint64((place + 1) << 48)) % len(some))) for place, some in enumerate(texts)
    )
    return pc.utf8_trim_whitespace(pc.binary_join_element_wise(*chosen, " "))


@cache
def _stripes():
    """Return what all images begin with, and rows of blocks that any of them may have: each is decoded on its own."""
    rng, stripes = np.random.default_rng(0), list[bytes]()
    for _ in range(_PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        pixels = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)) + rng.normal(
            0, 6, (_SIDE, _SIDE, 1)
        )
        image = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(image, "JPEG", quality=90, restart_marker_rows=1)
        header, scan = re.fullmatch(rb"(.*?\xff\xda\x00.{11})(.*)\xff\xd9", image.getvalue(), re.DOTALL).groups()  # type: ignore[union-attr]
        stripes += re.split(rb"\xff[\xd0-\xd7]", scan)
    assert len(stripes) == _PICTURES * _SIDE // 16
    return header, stripes


def _jpegs(pictures):
    """Yield the picture of each number."""
    header, stripes = _stripes()
    rows = _SIDE // 16
    chosen = mix64(pictures[:, None] * np.uint64(rows) + np.arange(rows, dtype=np.uint64)) % len(stripes)
    for some in chosen.tolist():
        scan = b"".join(stripes[stripe] + bytes((0xFF, 0xD0 + i % 8)) for i, stripe in enumerate(some))
        yield header + scan[:-2] + b"\xff\xd9"
