"""Small pools for tests: samples, rows of text, pictures, and the files they are written to.

Pictures are tiny and distinct under phash. Captions draw from a Zipf-like vocabulary. Equal arguments give equal bytes.
"""

import io
import itertools
import json
import tarfile
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

WORDS = (  # noqa: SIM905  (the most frequent first)
    "a the of in photo red dog on with blue cat and house old boat green tree small car bridge over river white horse "
    "big bird city night street yellow flower garden snow mountain lake train station market fruit bowl wooden table "
    "window lamp brick wall museum statue harbour lighthouse violin orchestra tractor barn"
).split()
METADATA = [
    *WORDS,
    "red dog", "blue cat", "old boat", "green tree", "white horse", "night street", "brick wall", "train station",
    "never seen", "St. Louis",
]  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One sample of a pool; None leaves the member out, or the field of the json."""

    key: str
    image: bytes | None
    caption: str | None
    url: str | None = None
    uid: str | None = None
    suffix: str = "jpg"
    fields: dict[str, Any] = field(default_factory=dict)


def sample(key, caption, **fields):
    """A sample whose picture follows from its key; `fields` are those of Sample."""
    return Sample(key, **{"image": encode(picture(sum(key.encode()))), "caption": caption} | fields)


def picture(number, side=48):
    """A picture of coarse noise, so that pictures differ under phash."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize((side + number % 7, side + number % 5), Image.Resampling.BICUBIC)


def encode(image, form="JPEG", **options):
    """The picture as a file."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def caption(rng):
    """2 to 9 words, the r-th most frequent one drawn in proportion to 1/r."""
    weights = 1 / np.arange(1, len(WORDS) + 1)
    return " ".join(rng.choice(WORDS, size=rng.integers(2, 10), p=weights / weights.sum()))


def make_samples(clean=240, seed=0):
    """Clean samples, then one twelfth as many of each kind of duplicate and of damage; keys are unique.

    Every fifth sample has no URL. Kinds: the same pair again (one uid), the image with another caption, the picture
    encoded otherwise (equal phash), one own uid for two captions, and what cannot be read.
    """
    rng = np.random.default_rng(seed)
    samples = [
        Sample(
            f"{i:05d}",
            encode(picture(seed * 100_000 + i)),
            f"{caption(rng)} {i}",
            None if i % 5 == 0 else f"https://example.com/{seed}/{i}.jpg",
            suffix=("jpg", "jpeg")[i % 2],
            fields={"license": "cc0", "number": i},
        )
        for i in range(clean)
    ]
    few = max(1, clean // 12)
    of = iter(rng.permutation(clean))
    for i in range(few):
        one, two, three, four, five = (samples[next(of) % clean] for _ in range(5))
        samples += [
            replace(one, key=f"again{i}"),
            replace(two, key=f"recaptioned{i}", caption=f"{caption(rng)} r{i}", url=two.url and f"{two.url}?2"),
            replace(
                three,
                key=f"reencoded{i}",
                image=encode(Image.open(io.BytesIO(three.image or b"")), "PNG"),
                url=None,
                suffix="png",
            ),
            replace(four, key=f"own{i}a", image=encode(picture(10**6 + i)), uid=f"{i:032x}", caption=f"red dog {i}"),
            replace(four, key=f"own{i}b", image=encode(picture(10**6 + i)), uid=f"{i:032x}", caption=f"blue cat {i}"),
            replace(five, key=f"bad{i}", **_damaged(five, i)),
        ]
    return samples


def _damaged(sample, kind):
    image = sample.image or b""
    return (
        {"image": image[: len(image) // 2]},
        {"image": b"<html>404</html>"},
        {"image": b""},
        {"image": None},
        {"caption": None},
        {"caption": " \t "},
    )[kind % 6]


def add_member(tar, name, data):
    """Adds a regular member."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path, samples):
    """Writes samples as img2dataset does: image, .txt, .json."""
    with tarfile.open(path, "w") as tar:
        for s in samples:
            fields = {
                "key": s.key,
                **s.fields,
                **({"url": s.url} if s.url else {}),
                **({"uid": s.uid} if s.uid else {}),
            }
            members = {s.suffix: s.image, "txt": None if s.caption is None else s.caption.encode()}
            for suffix, data in [*members.items(), ("json", json.dumps(fields).encode())]:
                if data is not None:
                    add_member(tar, f"{s.key}.{suffix}", data)
    return path


def split(items, parts):
    """Consecutive parts of about equal length."""
    edges = np.linspace(0, len(items), parts + 1).astype(int)
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def shuffled(items, seed):
    """The items in another order."""
    return [items[i] for i in np.random.default_rng(seed).permutation(len(items))]


def write_tars(folder, samples, shards):
    """Writes the samples into shards, and returns the path that names them all."""
    folder.mkdir(parents=True)
    for n, part in enumerate(split(samples, shards)):
        write_tar(folder / f"{n:05d}.tar", part)
    return f"{folder}/{{00000..{shards - 1:05d}}}.tar"


def make_rows(clean=3000, seed=0):
    """Rows of text: url, text, score (with ties, nulls and NaN), width, height; repeated, own-uid and bad rows."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    drawn = rng.choice(WORDS, size=(clean, 6), p=weights / weights.sum())
    texts = [" ".join(row[: 2 + i % 5]) + f" {i % 97}" for i, row in enumerate(drawn.tolist())]
    urls = [f"https://example.com/{i}" for i in range(clean)]
    scores = np.round(rng.random(clean), 2).tolist()
    uids = [None] * clean
    few = clean // 20
    for i in range(few):
        texts += [texts[i], f"red dog {i}", f"blue cat {i}", texts[2 * i], None if i % 2 else "  "]
        urls += [urls[i], f"https://own.example/{i}", f"https://own.example/{i}", None, f"https://bad.example/{i}"]
        scores += [scores[i], 0.9, 0.95, 0.5, None if i % 3 else float("nan")]
        uids += [None, f"{i:032x}", f"{i:032x}", None, None]
    sides = np.arange(len(texts)) % 640
    return pa.table(
        {
            "uid": pa.array(uids, pa.string()),
            "url": pa.array(urls, pa.string()),
            "text": pa.array(texts, pa.string()),
            "clip_score": pa.array(scores, pa.float32()),
            "original_width": sides + 100,
            "original_height": sides[::-1] + 100,
            "note": [f"row {i}" for i in range(len(texts))],
        }
    )


def write_parquets(folder, table, files, group=1000):
    """Writes the rows into files of row groups of `group` rows, and returns the path that names them all."""
    folder.mkdir(parents=True)
    for n, rows in enumerate(split(range(len(table)), files)):
        pq.write_table(table.slice(rows[0], len(rows)), folder / f"{n:05d}.parquet", row_group_size=group)
    return f"{folder}/{{00000..{files - 1:05d}}}.parquet"


def write_metadata(folder, entries=METADATA):
    """Writes a metadata list."""
    path = folder / "metadata.json"
    path.write_text(json.dumps(list(entries)))
    return str(path)
