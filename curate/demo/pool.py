"""Writes the demo's pool: drawn scenes with alt-text in webdataset tars, some of them spoilt, and the truth about each.

In: a folder, a number of samples, a seed. Out: `00000.tar` … (KEY.jpg, KEY.txt, KEY.json as img2dataset writes them),
`metadata.json` (a JSON list of strings) and `truth.parquet` (`TRUTH`, one row per sample written, in the tars' order;
written last). Equal arguments give identical files with equal versions of Pillow, numpy and pyarrow.

What is promised of the pool
- Every picture differs from every other in at least `MIN_DISTANCE` of the 64 bits of its perceptual hash, and from a
  injected duplicate in none: hashes are taken from the written bytes, and what does not comply is drawn again.
- A injected near-duplicate differs from its original in some bits. Nothing is promised of how many, or of how near it
  comes to other pictures: that is for deduplication to tell apart.
- Each sample has at most one defect. Clean pictures are 220 to 400 pixels a side. Captions say only what is there.

Trade-off: all images are held until they are written, about 15 KB each.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.demo import words
from curate.demo.pictures import alter, decode, encode, phash, reencode
from curate.demo.scenes import Scene, caption, compose, draw, pick

# What is injected, by name, and how many of each among 2,000 samples. Damage is named as `samples.status` names it.
DEFECTS = {
    "repeated": 20,  # the image, caption and URL of a clean sample: one uid twice
    "copied": 35,  # its image and caption under another URL
    "recaptioned": 30,  # its image under another URL, with another caption
    "reencoded": 40,  # its picture in another quality or format, with the same phash
    "compressed": 20,  # its picture as a JPEG of lower quality, with another phash
    "resized": 20,  # its picture in another size, with another phash
    "cropped": 40,  # its picture without 1 to 3 % of its width and of its height, with another phash
    "wrong_caption": 48,  # speaks of another scene, with no shape, colour or texture in common
    "boilerplate": 43,
    "language": 50,
    "tiny": 20,  # less than 64 pixels a side
    "extreme": 24,  # more than three times as wide as high, or the reverse
    "truncated_image": 15,
    "not_an_image": 15,
    "empty_image": 15,
    "caption_not_utf8": 15,
    "empty_caption": 15,
    "no_caption": 15,
}
DUPLICATES = ("repeated", "copied", "recaptioned", "reencoded")
NEAR_DUPLICATES = ("compressed", "resized", "cropped")
MIN_SAMPLES = 50
MIN_DISTANCE = 4

# `original_key` is the clean sample of which this one is a duplicate or near-duplicate, else ''. `caption` is null
# where no reader can get one; `language` is its ISO 639-1 code. From `shape` on, the picture (the intended one, if the
# file is damaged): `shape`, `colour`, `size` and `position` are of the shape that short captions name, the first in
# `shapes` and `colours`; of a near-duplicate they are its original's.
TRUTH = pa.schema(
    [(name, pa.string()) for name in ("shard", "key", "defect", "original_key", "url", "caption", "language", "suffix")]
    + [("width", pa.int32()), ("height", pa.int32())]
    + [(name, pa.string()) for name in ("shape", "colour", "size", "position", "background", "background_colour")]
    + [("shapes", pa.list_(pa.string())), ("colours", pa.list_(pa.string()))]
)

_Canvas = Callable[[np.random.Generator], tuple[int, int]]
_EXTREMES = ((600, 60), (60, 480), (728, 90), (700, 205), (210, 680), (810, 220))


@dataclass(frozen=True)
class Sample:
    """One sample as it is written: `raw` is the .txt (None: there is none), `text` the caption that readers get."""

    scene: Scene
    image: bytes
    suffix: str
    url: str
    text: str | None
    raw: bytes | None
    language: str = "en"
    defect: str = ""
    original: int | None = None


def write_pool(folder: str | Path, samples: int = 2000, seed: int = 0, shards: int = 4) -> pa.Table:
    """Write a pool, its metadata and its truth into a local folder, made if missing; files of these names are replaced.

    Args:
        samples: samples in all, defects included; at least `MIN_SAMPLES`, at most 10,000 per shard.
        seed: at least 0; another seed gives another pool.

    Returns:
        The truth, with the schema `TRUTH`.

    Raises:
        ValueError: too few or too many samples for the shards.
    """
    if not MIN_SAMPLES <= samples <= 10_000 * shards:
        raise ValueError(f"samples={samples} in shards={shards}: accepted are {MIN_SAMPLES} to 10,000 per shard")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(metadata_entries(), indent=0) + "\n", encoding="utf-8")
    pool = make_pool(samples, seed)
    parts = [part.tolist() for part in np.array_split(_rng(seed, "order").permutation(samples), shards)]
    keys = {row: f"{shard:05d}{place:04d}" for shard, part in enumerate(parts) for place, row in enumerate(part)}
    for shard, part in enumerate(parts):
        _write_tar(folder / f"{shard:05d}.tar", [(keys[row], pool[row]) for row in part])
    truths = [_truth(keys, shard, row, pool[row]) for shard, part in enumerate(parts) for row in part]
    truth = pa.Table.from_pylist(truths, schema=TRUTH)
    pq.write_table(truth, folder / "truth.parquet")
    return truth


def make_pool(samples: int, seed: int) -> list[Sample]:
    """Make a pool's samples: clean ones, defects by kind, (near-)duplicates; `original` is a row of this list."""
    quotas = {defect: max(1, round(wanted * samples / 2000)) for defect, wanted in DEFECTS.items()}
    easel = _Easel(seed, samples)
    pool = [_clean(easel, row) for row in range(samples - sum(quotas.values()))]
    originals = iter(_rng(seed, "originals").permutation(len(pool)).tolist()[::-1])
    for defect, spoil in _SPOILERS.items():
        for _ in range(quotas[defect]):
            pool.append(replace(spoil(easel, len(pool)), defect=defect))

    def add_copies(defect: str, rows: Iterator[int], make: Callable[..., Sample | None]) -> None:
        for _ in range(quotas[defect]):
            row, copy = next((row, copy) for row in rows if (copy := make(defect, pool[row], seed, len(pool))))
            pool.append(replace(copy, defect=defect, original=row))

    for defect in DUPLICATES:
        add_copies(defect, originals, _duplicate)
    # Each kind alters pictures of one family before others, so that some have two or three near-duplicates.
    family = list(islice(originals, max(quotas[defect] for defect in NEAR_DUPLICATES)))
    for defect in NEAR_DUPLICATES:
        relatives = [family[place] for place in _rng(seed, defect).permutation(len(family))]
        add_copies(defect, chain(relatives[::-1], originals), _near_duplicate)
    return pool


def metadata_entries() -> list[str]:
    """Return the demo's metadata, in the order of a real one: numbers, words, names, bigrams; then what never matches."""
    names = [f"{colour} {thing}" for thing in words.SHAPES for colour in words.COLOURS]
    grounds = [f"{colour} {thing}" for thing in words.BACKGROUNDS for colour in words.COLOURS]
    templates = " ".join((*words.ONE, *words.MANY, *words.TAILS))
    between_fields = re.findall(r"[^\W\d_][\w'-]*", re.sub(r"\{[^}]*\}", " ", templates))
    entries = [
        *(str(number) for number in range(100)),
        *(word for thing in (*words.SHAPES, *words.COLOURS) for word in (thing, thing.capitalize())),
        *(f"{shape}s" for shape in words.SHAPES if not shape.endswith("s")),
        *(name for ground in words.BACKGROUNDS.values() for name in (ground.noun, ground.adjective)),
        *words.GRAMMAR,
        *sorted(between_fields),
        *words.BRANDS,
        *names,
        *(name.capitalize() for name in names),
        *grounds,
        *words.DECOYS,
    ]
    return list(dict.fromkeys(entries))


class _Easel:
    """Draws scenes no two of which are alike: it remembers the hash of each, and draws again what comes too near."""

    def __init__(self, seed: int, capacity: int) -> None:
        self.seed = seed
        self._hashes = np.zeros(capacity, np.uint64)
        self._drawn = 0

    def picture(self, row: int, canvas: _Canvas, suffix: str) -> tuple[Scene, bytes]:
        """Return a row's scene, which hangs on row and attempt alone (one drawn again moves no other), and its picture."""
        attempt = 0
        while True:
            rng = _rng(self.seed, "scene", row, attempt)
            scene = compose(rng, *canvas(rng))
            image = encode(draw(scene, rng), suffix, 85)
            value = np.uint64(phash(image))
            distances = np.bitwise_count(self._hashes[: self._drawn] ^ value)
            if distances.min(initial=64) >= MIN_DISTANCE:
                self._hashes[self._drawn] = value
                self._drawn += 1
                return scene, image
            attempt += 1


def _rng(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """Return a generator per purpose and row, so that a change in one leaves the others as they are."""
    entropy = [seed, int.from_bytes(purpose.encode(), "big"), *path]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _sides(rng: np.random.Generator, least: int = 220, most: int = 400) -> tuple[int, int]:
    width, height = (least + int(rng.random() * (most - least + 1)) for _ in range(2))
    return width, height


def _url(rng: np.random.Generator, scene: Scene, suffix: str, row: int) -> str:
    """Return a URL that no other row has."""
    item = scene.items[0]
    return f"https://example.com/{pick(rng, words.SECTIONS)}/{item.colour}-{item.shape}-{row:05d}.{suffix}"


def _clean(
    easel: _Easel, row: int, canvas: _Canvas = _sides, suffixes: tuple[str, ...] = ("jpg",) * 48 + ("png", "webp")
) -> Sample:
    """Return a sample without a defect."""
    rng = _rng(easel.seed, "sample", row)
    suffix = pick(rng, suffixes)
    scene, image = easel.picture(row, canvas, suffix)
    text = caption(scene, rng)
    return Sample(scene, image, suffix, _url(rng, scene, suffix, row), text, text.encode())


def _captioned(sample: Sample, text: str) -> Sample:
    return replace(sample, text=text, raw=text.encode())


def _wrong_caption(easel: _Easel, row: int) -> Sample:
    sample, rng = _clean(easel, row), _rng(easel.seed, "spoil", row)
    other = compose(rng, 300, 300)
    while other.concepts & sample.scene.concepts:
        other = compose(rng, 300, 300)
    return _captioned(sample, caption(other, rng))


def _boilerplate(easel: _Easel, row: int) -> Sample:
    rng = _rng(easel.seed, "spoil", row)
    return _captioned(_clean(easel, row), pick(rng, words.BOILERPLATE).format(number=1 + int(rng.random() * 2000)))


def _language(easel: _Easel, row: int) -> Sample:
    sample, rng = _clean(easel, row), _rng(easel.seed, "spoil", row)
    code = list(words.LANGUAGES)[row % len(words.LANGUAGES)]  # in turn, so that a small pool has each
    language, item = words.LANGUAGES[code], sample.scene.items[0]
    shape = language.shapes[words.SHAPES.index(item.shape)]
    colour = language.colours[list(words.COLOURS).index(item.colour)]
    text = pick(rng, language.templates).format(shape=shape, colour=colour)
    return replace(_captioned(sample, text[0].upper() + text[1:]), language=code)


def _truncated(easel: _Easel, row: int) -> Sample:
    sample, rng = _clean(easel, row, suffixes=("jpg",)), _rng(easel.seed, "spoil", row)
    return replace(sample, image=sample.image[: int(len(sample.image) * (0.4 + 0.4 * rng.random()))])


def _not_utf8(easel: _Easel, row: int) -> Sample:
    sample = _clean(easel, row)
    return replace(sample, text=None, raw=f"{sample.text} – Café Prisma".encode("cp1252"))


_SPOILERS: dict[str, Callable[[_Easel, int], Sample]] = {
    "wrong_caption": _wrong_caption,
    "boilerplate": _boilerplate,
    "language": _language,
    "tiny": lambda easel, row: _clean(easel, row, partial(_sides, least=20, most=63)),
    "extreme": lambda easel, row: _clean(easel, row, lambda rng: pick(rng, _EXTREMES)),
    "truncated_image": _truncated,
    "not_an_image": lambda easel, row: replace(_clean(easel, row, suffixes=("jpg",)), image=words.NOT_FOUND_PAGE),
    "empty_image": lambda easel, row: replace(_clean(easel, row), image=b""),
    "caption_not_utf8": _not_utf8,
    "empty_caption": lambda easel, row: replace(_clean(easel, row), text=None, raw=b" \n" if row % 2 else b""),
    "no_caption": lambda easel, row: replace(_clean(easel, row), text=None, raw=None),
}


def _duplicate(defect: str, original: Sample, seed: int, row: int) -> Sample | None:
    """Return a duplicate of a clean sample; None where no other encoding keeps its phash."""
    rng = _rng(seed, "duplicate", row)
    if defect == "repeated":
        return original
    copy = original
    if defect == "reencoded":
        recoded = reencode(original.image, rng)
        if recoded is None:
            return None
        copy = replace(original, image=recoded[0], suffix=recoded[1])
    copy = replace(copy, url=_url(rng, copy.scene, copy.suffix, row))
    if defect == "copied" or (defect == "reencoded" and rng.random() < 0.5):
        return copy
    text = original.text
    while text == original.text:
        text = caption(original.scene, rng)
    return _captioned(copy, text or "")


def _near_duplicate(defect: str, original: Sample, seed: int, row: int) -> Sample | None:
    """Return a clean sample with altered picture and, every other time, caption; None where its phash stays."""
    rng = _rng(seed, "near", row)
    image = alter(defect, original.image, rng)
    if image is None:
        return None
    width, height = decode(image).size
    # What the scene says of places and sizes stays the original's: cropping moves them by at most 3 %.
    copy = replace(original, image=image, suffix="jpg", scene=replace(original.scene, width=width, height=height))
    copy = replace(copy, url=_url(rng, copy.scene, copy.suffix, row))
    return copy if rng.random() < 0.5 else _captioned(copy, _retouched(original.text or "", rng))


def _retouched(text: str, rng: np.random.Generator) -> str:
    """Return a caption as another site gives it: in other capitals, or with something added."""
    bare, brand = text.rstrip("."), pick(rng, words.BRANDS)
    ways = (text.lower(), text.title(), f"{bare} | {brand}", f"{bare} (image {2 + int(rng.random() * 98)})")
    return pick(rng, [way for way in ways if way != text])


def _write_tar(path: Path, samples: list[tuple[str, Sample]]) -> None:
    """Write one tar, members in the order of webdataset's writer (by suffix), its headers the same on any machine."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, sample in samples:
            members = {sample.suffix: sample.image, "json": _sidecar(key, sample)}
            if sample.raw is not None:
                members["txt"] = sample.raw
            for suffix, data in sorted(members.items()):
                header = tarfile.TarInfo(f"{key}.{suffix}")
                header.size, header.mode, header.mtime = len(data), 0o644, 0
                tar.addfile(header, io.BytesIO(data))


def _sidecar(key: str, sample: Sample) -> bytes:
    """Return KEY.json with img2dataset's fields."""
    fields = {
        "url": sample.url,
        "caption": sample.text,
        "key": key,
        "status": "success",
        "error_message": None,
        "width": sample.scene.width,
        "height": sample.scene.height,
        "original_width": sample.scene.width,
        "original_height": sample.scene.height,
        "exif": "{}",
        "sha256": hashlib.sha256(sample.image).hexdigest(),
    }
    return json.dumps(fields, indent=4).encode()


def _truth(keys: dict[int, str], shard: int, row: int, sample: Sample) -> dict[str, object]:
    """Return the row of `TRUTH` for one sample."""
    scene, item = sample.scene, sample.scene.items[0]
    original = "" if sample.original is None else keys[sample.original]
    values = (
        *(
            f"{shard:05d}.tar",
            keys[row],
            sample.defect,
            original,
            sample.url,
            sample.text,
            sample.language,
            sample.suffix,
        ),
        *(scene.width, scene.height),
        *(item.shape, item.colour, item.size or "medium", item.position, scene.background, scene.background_colour),
        *([each.shape for each in scene.items], [each.colour for each in scene.items]),
    )
    return dict(zip(TRUTH.names, values, strict=True))
