"""The blocks of a section of the report: plain values, which page.html lays out. No HTML but the charts' SVG."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A cell with a bar behind its text; lengths are fractions of the column's width."""

    text: str
    length: float
    style: str = "kept"  # kept, pool, drop: a colour


Cell = str | Bar


@dataclass(frozen=True)
class Table:
    """A table. Columns named in `words` are text, to the left; the others are numbers. Folded: shown when opened."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[str] = ()
    title: str = ""
    note: str = ""
    folded: bool = False
    last_is_sum: bool = False


@dataclass(frozen=True)
class Tables:
    """Tables side by side, where there is room."""

    tables: Sequence[Table]


@dataclass(frozen=True)
class Tiles:
    """Numbers with a label each."""

    tiles: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Figure:
    """A chart: SVG by `charts.render_svg`; `narrow` may hold one for phones. The legend's first item is a colour."""

    title: str
    svg: str
    narrow: str = ""
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    table: Table | None = None


@dataclass(frozen=True)
class Figures:
    """Figures in a grid, with a legend for all of them (color, name)."""

    figures: Sequence[Figure]
    title: str = ""
    legend: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a data URI, or why it is missing; neither where the pool has no images."""

    data: str = ""
    missing: str = ""
    blurred: bool = False
    label: str = ""


@dataclass(frozen=True)
class Card:
    """A sample: pictures, texts by label, values by name, and its name for `curate explain`: uid or key."""

    pictures: Sequence[Picture]
    texts: Sequence[tuple[str, str]]
    values: Sequence[tuple[str, str]]
    name: str


@dataclass(frozen=True)
class Gallery:
    """Samples in a grid."""

    title: str
    cards: Sequence[Card]
    note: str = ""


@dataclass(frozen=True)
class Code:
    """Text as it is, folded."""

    title: str
    text: str


Block = str | Table | Tables | Tiles | Figures | Gallery | Code  # a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    title: str
    blocks: Sequence[Block]
