"""Makes the samples of the demo's pool: drawn scenes with alt-text, some with one injected defect.

- The perceptual hashes of two pictures differ in at least `MIN_DISTANCE` of 64 bits; those of injected duplicates are
  equal. Hashes are computed from the written bytes. If a new picture is too close to another, it is drawn again.
- The hash of an injected near-duplicate differs from its original's in any number of bits, and may be close to those
  of other pictures.
- Each sample has at most one defect. Clean pictures have sides of 220 to 400 pixels. Captions describe only what is
  visible, in one of many styles: titles, sentences, products, tags.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any

import numpy as np

from curate.demo import words
from curate.demo.drawing import alter, decode, draw, encode, phash, reencode
from curate.demo.scenes import Scene, compose, pick

DUPLICATES = ("repeated", "copied", "recaptioned", "reencoded")
NEAR_DUPLICATES = ("compressed", "resized", "cropped")
MIN_DISTANCE = 4

_EXTREMES = ((600, 60), (60, 480), (728, 90), (700, 205), (210, 680), (810, 220))
_SUFFIXES = ("jpg",) * 48 + ("png", "webp")
_PREPOSITIONS = {"top": "at", "bottom": "at", "left": "on", "right": "on"}  # of other positions: in
_COUNTS = ("one", "two", "three")


@dataclass(frozen=True)
class Sample:
    """One sample. `text` is its readable caption. If it is None, the .txt contains `raw`, or is missing."""

    scene: Scene
    image: bytes
    suffix: str
    url: str
    text: str | None
    raw: bytes | None = None
    language: str = "en"
    defect: str = ""
    original: int | None = None

    @property
    def txt(self) -> bytes | None:
        """The contents of the .txt; None if it is missing."""
        return self.raw if self.text is None else self.text.encode()


def make_samples(total: int, seed: int) -> list[Sample]:
    """Make clean samples, defects by kind, and (near-)duplicates; `original` is a row of this list."""
    quotas = {defect: max(1, round(quota * total / 2000)) for defect, quota in words.DEFECTS.items()}
    hashes: list[int] = []
    samples = [_clean(seed, row, hashes) for row in range(total - sum(quotas.values()))]
    originals = iter(make_rng(seed, "originals").permutation(len(samples)).tolist()[::-1])
    for defect in [name for name in words.DEFECTS if name not in (*DUPLICATES, *NEAR_DUPLICATES)]:
        for row in range(len(samples), len(samples) + quotas[defect]):
            samples.append(_spoil(_clean(seed, row, hashes, defect), defect, seed, row))

    def add_copies(defect: str, rows: Iterator[int]) -> None:
        copy = _near_duplicate if defect in NEAR_DUPLICATES else _duplicate
        for position in range(len(samples), len(samples) + quotas[defect]):
            row, sample = next((row, sample) for row in rows if (sample := copy(defect, samples[row], seed, position)))
            samples.append(replace(sample, defect=defect, original=row))

    for defect in DUPLICATES:
        add_copies(defect, originals)
    # All kinds first use pictures of the same family, so that some have two or three near-duplicates.
    family = list(islice(originals, max(quotas[defect] for defect in NEAR_DUPLICATES)))
    for defect in NEAR_DUPLICATES:
        relatives = [family[position] for position in make_rng(seed, defect).permutation(len(family))]
        add_copies(defect, chain(relatives[::-1], originals))
    return samples


def make_rng(seed: int, purpose: str, *path: int) -> np.random.Generator:
    """Return a generator for a purpose and a row, so that a change in one does not affect the others."""
    entropy = [seed, int.from_bytes(purpose.encode(), "big"), *path]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def _clean(seed: int, row: int, hashes: list[int], defect: str = "") -> Sample:
    """Return the sample of a row without its defect, unless that is a defect of size.

    `hashes` are the hashes of earlier samples; its own is added. A scene that is too similar to one of them is drawn
    again, from the row and the number of the attempt, so that other rows do not change.
    """
    rng = make_rng(seed, "sample", row)
    suffix = pick(rng, ("jpg",) if defect in ("truncated_image", "not_an_image") else _SUFFIXES)
    for attempt in count():
        chance = make_rng(seed, "scene", row, attempt)
        if defect == "extreme":
            width, height = pick(chance, _EXTREMES)
        else:
            low, high = (20, 63) if defect == "tiny" else (220, 400)
            width, height = (low + int(chance.random() * (high - low + 1)) for _ in range(2))
        scene = compose(chance, width, height)
        image = encode(draw(scene, chance), suffix, 85)
        value = phash(image)
        if all((value ^ other).bit_count() >= MIN_DISTANCE for other in hashes):
            hashes.append(value)
            break
    text = caption(scene, rng)
    return Sample(scene, image, suffix, _url(rng, scene, suffix, row), text)


def _url(rng: np.random.Generator, scene: Scene, suffix: str, row: int) -> str:
    item = scene.items[0]
    return f"https://example.com/{pick(rng, words.SECTIONS)}/{item.colour}-{item.shape}-{row:05d}.{suffix}"


def _spoil(sample: Sample, defect: str, seed: int, row: int) -> Sample:
    """Add a defect to a clean sample; defects of size are already in its scene."""
    rng = make_rng(seed, "spoil", row)
    spoilt: dict[str, Any] = {"defect": defect}
    match defect:
        case "wrong_caption":
            other = compose(rng, 300, 300)
            while other.concepts & sample.scene.concepts:
                other = compose(rng, 300, 300)
            spoilt["text"] = caption(other, rng)
        case "boilerplate":
            spoilt["text"] = pick(rng, words.BOILERPLATE).format(number=1 + int(rng.random() * 2000))
        case "language":
            code = list(words.LANGUAGES)[row % len(words.LANGUAGES)]  # in turn, so that a small pool has each
            item, language = sample.scene.items[0], words.LANGUAGES[code]
            shape = language.shapes[words.SHAPES.index(item.shape)]
            colour = language.colours[list(words.COLOURS).index(item.colour)]
            text = pick(rng, language.templates).format(shape=shape, colour=colour)
            spoilt |= {"text": text[0].upper() + text[1:], "language": code}
        case "truncated_image":
            spoilt["image"] = sample.image[: int(len(sample.image) * (0.4 + 0.4 * rng.random()))]
        case "not_an_image":
            spoilt["image"] = words.NOT_FOUND_PAGE.encode()
        case "empty_image":
            spoilt["image"] = b""
        case "caption_not_utf8":
            spoilt |= {"text": None, "raw": f"{sample.text} – Café Prisma".encode("cp1252")}
        case "empty_caption":
            spoilt |= {"text": None, "raw": b" \n" if row % 2 else b""}
        case "no_caption":
            spoilt["text"] = None
    return replace(sample, **spoilt)


def _duplicate(defect: str, original: Sample, seed: int, row: int) -> Sample | None:
    """Return a duplicate of a clean sample; None if no other encoding keeps its phash."""
    rng = make_rng(seed, "duplicate", row)
    if defect == "repeated":
        return original
    image, suffix = original.image, original.suffix
    if defect == "reencoded":
        recoded = reencode(image, rng)
        if recoded is None:
            return None
        image, suffix = recoded
    copy = replace(original, image=image, suffix=suffix, url=_url(rng, original.scene, suffix, row))
    if defect == "copied" or (defect == "reencoded" and rng.random() < 0.5):
        return copy
    text = original.text
    while text == original.text:
        text = caption(original.scene, rng)
    return replace(copy, text=text)


def _near_duplicate(defect: str, original: Sample, seed: int, row: int) -> Sample | None:
    """Return a sample with a changed picture and, half of the time, a changed caption; None if its phash is equal."""
    rng = make_rng(seed, "near", row)
    image = alter(defect, original.image, rng)
    if image is None:
        return None
    width, height = decode(image).size
    # Places and sizes stay the original's: cropping moves them by at most 3%.
    scene = replace(original.scene, width=width, height=height)
    copy = replace(original, image=image, suffix="jpg", scene=scene, url=_url(rng, scene, "jpg", row))
    if rng.random() < 0.5:
        return copy
    # As on another site: with other capitals, or an addition.
    text = original.text or ""
    bare, brand = text.rstrip("."), pick(rng, words.BRANDS)
    ways = (text.lower(), text.title(), f"{bare} | {brand}", f"{bare} (image {2 + int(rng.random() * 98)})")
    return replace(copy, text=pick(rng, [way for way in ways if way != text]))


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write a caption; `rng` chooses the style, and details that the scene does not determine."""
    templates = words.MANY if len(scene.items) > 1 and rng.random() < 0.8 else words.ONE
    text = pick(rng, list(templates), templates.values()).format_map(caption_fields(scene, rng))
    tail = pick(rng, list(words.TAILS), words.TAILS.values()).format_map(caption_fields(scene, rng))
    text = (text.rstrip(".") if tail else text) + tail
    if rng.random() < 0.3:
        text = text.replace("gray", "grey")
    style = rng.random()
    if style < 0.015:
        return text.upper()
    if style < 0.08:
        return text.title()
    return text if style < 0.22 else text[0].upper() + text[1:]


def caption_fields(scene: Scene, rng: np.random.Generator) -> dict[str, object]:
    """Return the fields of a caption template (see words.yaml)."""
    first, kind = scene.items[0], words.BACKGROUNDS[scene.background]
    bare = f"{scene.background_colour} {scene.background}"
    names = [f"{item.colour} {item.shape}" for item in scene.items]
    return {
        "item": names[0],
        "a_item": _article(names[0]),
        "a_sized": _article(f"{first.size} {names[0]}".strip()),
        "a_all": _listed([_article(name) for name in names]),
        "all": ", ".join(names),
        "relation": _relation(scene, [_article(name) for name in names]),
        "count": _COUNTS[len(names) - 1],
        "shapes": _listed([item.shape for item in scene.items]),
        "ground": _article(bare) if scene.background in words.COUNTABLE else bare,
        "bare": bare,
        "kind": kind,
        "a_ground": _article(f"{scene.background_colour} {kind}"),
        "where": f"{_PREPOSITIONS.get(first.position, 'in')} the {first.position}",
        "colour": first.colour,
        "shape": first.shape,
        "ground_colour": scene.background_colour,
        "brand": pick(rng, words.BRANDS),
        "person": pick(rng, words.PEOPLE),
        "number": 2 + int(rng.random() ** 3 * 98),
        "year": 2004 + int(rng.random() * 21),
        "pixels": pick(rng, words.PIXELS),
        "print": pick(rng, words.PRINTS),
    }


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _relation(scene: Scene, names: list[str]) -> str:
    """Describe the relation of the first two shapes: "a red star above a pink ring"; or name the only shape."""
    if len(names) == 1:
        return names[0]
    first, second = scene.items[:2]
    right, down = (second.x - first.x) * scene.width, (second.y - first.y) * scene.height
    if abs(right) > abs(down):
        link = "to the left of" if right > 0 else "to the right of"
    else:
        link = "above" if down > 0 else "below"
    return f"{names[0]} {link} {names[1]}" + "".join(f", with {name}" for name in names[2:])
