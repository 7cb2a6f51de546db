"""Writes the demo's pool: tars of drawn scenes with alt-text, some with injected defects, and the truth about each.

In: a folder, a number of samples, a seed. Out: `00000.tar` … (KEY.jpg, KEY.txt, KEY.json as img2dataset writes them),
`metadata.json` (a JSON list of strings) and, last, `truth.parquet` (`TRUTH`, a row per sample, in the tars' order).
The same arguments give identical files if the versions of Pillow, numpy and pyarrow are the same. All images, about
15 KB each, are in memory until they are written.
"""

import hashlib
import io
import json
import re
import tarfile
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.demo import words
from curate.demo.samples import Sample, make_rng, make_samples

MIN_SAMPLES = 50

# For a duplicate or near-duplicate, `original_key` is its original's key; otherwise it is ''. `caption` is null if it
# cannot be read; `language` is its ISO 639-1 code. The columns from `shape` on describe the intended picture: `shape`,
# `colour`, `size` and `position` are those of the shape in short captions, the first in `shapes` and `colours`. A
# near-duplicate has the values of its original.
TRUTH = pa.schema(
    [(name, pa.string()) for name in ("shard", "key", "defect", "original_key", "url", "caption", "language", "suffix")]
    + [("width", pa.int32()), ("height", pa.int32())]
    + [(name, pa.string()) for name in ("shape", "colour", "size", "position", "background", "background_colour")]
    + [("shapes", pa.list_(pa.string())), ("colours", pa.list_(pa.string()))]
)


def write_pool(folder: str | Path, samples: int = 2000, seed: int = 0, shards: int = 4) -> pa.Table:
    """Write a pool, its metadata and its truth to a local folder, replace existing files, and return the truth.

    `samples` includes those with defects: at least `MIN_SAMPLES`, at most 10,000 per shard. `seed` is at least 0.
    Raises ValueError.
    """
    if not MIN_SAMPLES <= samples <= 10_000 * shards:
        raise ValueError(f"samples={samples} in shards={shards}; accepted: {MIN_SAMPLES} to 10,000 per shard")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(metadata_entries(), indent=0) + "\n", encoding="utf-8")
    pool = make_samples(samples, seed)
    parts = [part.tolist() for part in np.array_split(make_rng(seed, "order").permutation(samples), shards)]
    keys = {row: f"{shard:05d}{position:04d}" for shard, part in enumerate(parts) for position, row in enumerate(part)}
    for shard, part in enumerate(parts):
        _write_tar(folder / f"{shard:05d}.tar", [(keys[row], pool[row]) for row in part])
    truth = pa.Table.from_pylist([_truth(keys, row, pool[row]) for row in keys], schema=TRUTH)
    pq.write_table(truth, folder / "truth.parquet")
    return truth


def metadata_entries() -> list[str]:
    """Return the demo's metadata, in a realistic order: numbers, words, names, bigrams, unmatched entries."""
    names = [f"{colour} {thing}" for thing in words.SHAPES for colour in words.COLOURS]
    grounds = [f"{colour} {thing}" for thing in words.BACKGROUNDS for colour in words.COLOURS]
    templates = " ".join((*words.ONE, *words.MANY, *words.TAILS))
    between_fields = re.findall(r"[^\W\d_][\w'-]*", re.sub(r"\{[^}]*\}", " ", templates))
    entries = [
        *(str(number) for number in range(100)),
        *(word for thing in (*words.SHAPES, *words.COLOURS) for word in (thing, thing.capitalize())),
        *(f"{shape}s" for shape in words.SHAPES if not shape.endswith("s")),
        *chain.from_iterable(words.BACKGROUNDS.items()),
        *words.GRAMMAR,
        *sorted(between_fields),
        *words.BRANDS,
        *names,
        *(name.capitalize() for name in names),
        *grounds,
        *words.DECOYS,
    ]
    return list(dict.fromkeys(entries))


def _write_tar(path: Path, samples: list[tuple[str, Sample]]) -> None:
    """Write one tar with members in the order of webdataset's writer (by suffix), and headers equal on all machines."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in samples:
            members = {sample.suffix: sample.image, "json": _sidecar(key, sample)}
            if sample.txt is not None:
                members["txt"] = sample.txt
            for suffix, data in sorted(members.items()):
                header = tarfile.TarInfo(f"{key}.{suffix}")
                header.size, header.mode, header.mtime = len(data), 0o644, 0
                tar.addfile(header, io.BytesIO(data))


def _sidecar(key: str, sample: Sample) -> bytes:
    width, height = sample.scene.width, sample.scene.height
    fields = {
        **{"url": sample.url, "caption": sample.text, "key": key, "status": "success", "error_message": None},
        **{"width": width, "height": height, "original_width": width, "original_height": height},
        "exif": "{}",
        "sha256": hashlib.sha256(sample.image).hexdigest(),
    }
    return json.dumps(fields, indent=4).encode()


def _truth(keys: dict[int, str], row: int, sample: Sample) -> dict[str, object]:
    scene, item = sample.scene, sample.scene.items[0]
    return {
        **vars(item),
        **vars(scene),
        **vars(sample),
        "shard": f"{keys[row][:5]}.tar",
        "key": keys[row],
        "original_key": "" if sample.original is None else keys[sample.original],
        "caption": sample.text,
        "size": item.size or "medium",
        "position": item.position,
        "shapes": [item.shape for item in scene.items],
        "colours": [item.colour for item in scene.items],
    }
