"""Write the alt-text of the demo's scenes in English, in one of many styles: titles, sentences, products, tags."""

from collections.abc import Sequence

import numpy as np

from curate.demo import words
from curate.demo.scenes import Scene, pick, pick_weighted

_PREPOSITIONS = {"top": "at", "bottom": "at", "left": "on", "right": "on"}  # of other positions: in
_COUNTS = ("one", "two", "three")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write a caption; `rng` chooses the style, and what the scene does not say."""
    templates = words.MANY if len(scene.items) > 1 and rng.random() < 0.8 else words.ONE
    text = pick_weighted(rng, templates).format_map(caption_fields(scene, rng))
    tail = pick_weighted(rng, words.TAILS).format_map(caption_fields(scene, rng))
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
    """Say how the first two shapes lie: "a red star above a pink ring"; the first alone where there is no second."""
    if len(names) == 1:
        return names[0]
    first, second = scene.items[:2]
    right, down = (second.x - first.x) * scene.width, (second.y - first.y) * scene.height
    if abs(right) > abs(down):
        link = "to the left of" if right > 0 else "to the right of"
    else:
        link = "above" if down > 0 else "below"
    return f"{names[0]} {link} {names[1]}" + "".join(f", with {name}" for name in names[2:])
