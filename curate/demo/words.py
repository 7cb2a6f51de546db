"""The words of the demo, from `words.yaml`, which explains them."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from curate.recipe.strict_yaml import load_yaml

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Language:
    """Alt-text in another language, with words in the order of `SHAPES` and `COLOURS`, inflected for its templates."""

    shapes: list[str]
    colours: list[str]
    templates: list[str]


_WORDS: dict[str, Any] = load_yaml(files("curate.demo").joinpath("words.yaml").read_text("utf-8"))

SHAPES: list[str] = _WORDS["shapes"]
COLOURS: dict[str, RGB] = {name: tuple(rgb) for name, rgb in _WORDS["colours"].items()}
GROUND_COLOURS: list[str] = _WORDS["ground_colours"]
BACKGROUNDS: dict[str, str] = _WORDS["backgrounds"]  # noun → adjective
COUNTABLE: list[str] = _WORDS["countable"]
CORNERS: dict[str, list[tuple[float, float]]] = _WORDS["corners"]
ONE: dict[str, float] = _WORDS["one"]
MANY: dict[str, float] = _WORDS["many"]
TAILS: dict[str, float] = _WORDS["tails"]
BRANDS: list[str] = _WORDS["brands"]
PEOPLE: list[str] = _WORDS["people"]
PRINTS: list[str] = _WORDS["prints"]
PIXELS: list[str] = _WORDS["pixels"]
BOILERPLATE: list[str] = _WORDS["boilerplate"]
SECTIONS: list[str] = _WORDS["sections"]
GRAMMAR: list[str] = _WORDS["grammar"]
NOT_FOUND_PAGE: str = _WORDS["not_found_page"]
DEFECTS: dict[str, int] = _WORDS["defects"]
AIMS: dict[str, list[str]] = _WORDS["aims"]
DECOYS: list[str] = _WORDS["decoys"]
LANGUAGES = {code: Language(**words) for code, words in _WORDS["languages"].items()}
