"""Charts as static SVG: Vega-Lite specs as dicts in, SVG for an HTML page out, without a network or a script.

Colours are CSS variables, which the page defines for light and dark (`style.css`); `theme.json` is Vega-Lite's config.
A mark with `aria: true` that encodes `description` gets it as a native tooltip. Untrusted texts must have passed
`blocks.clean`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from xml.etree import ElementTree

from curate.ask.report.blocks import Table, count, percent
from curate.base.process import check_address_space

KEPT, PANEL, MUTED = (f"var(--{name})" for name in ("kept", "panel", "muted"))
THRESHOLD = {"type": "rule", "color": "var(--mark)", "strokeDash": [4, 3], "strokeWidth": 1.5}
HEIGHT = 150  # pixels of a histogram, also in histogram.json
KINDS = ("svg", "png", "html")  # of files
_ENGINE_BYTES = 100_000_000_000  # address space that V8 reserves; it uses hardly any of it
_SCHEMA = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json"}

# No descriptions by default: Vega-Lite makes expressions of the titles, unescaped, so that a backslash in a stranger's
# column name breaks the chart.
_VARIABLE = re.compile(r"--([\w-]+): (#\w+);")
_ELEMENTS = {"svg", "g", "path", "line", "text", "tspan", "rect", "circle", "title"}
_FRAMES = {"axis", "legend", "title", "group mark container", None}
_DROPPED = ("aria-", "role", "class", "id", "version", "width", "height", "on", "href", "pointer-events")


def _load(name: str) -> Any:
    return json.loads(files("curate.ask.report").joinpath(f"{name}.json").read_text("utf-8"))


def load_engine() -> Any:
    """Return the library that draws charts. Raises RunError where a limit would end the process."""
    check_address_space(_ENGINE_BYTES, "drawing charts")
    import vl_convert  # here: a JavaScript engine, 0.4 s to start

    return vl_convert


def write_chart(path: str, spec: Mapping[str, Any]) -> None:
    """Write a chart, whose data are in its spec, to a file whose name ends in one of KINDS. Raises OSError."""
    vl_convert = load_engine()
    whole = {**_SCHEMA, **spec}
    kind = path.rpartition(".")[2].lower()
    if kind == "png":
        data = vl_convert.vegalite_to_png(whole, scale=2, allowed_base_urls=[])
    elif kind == "svg":
        data = vl_convert.vegalite_to_svg(whole, allowed_base_urls=[]).encode()
    else:
        data = vl_convert.vegalite_to_html(whole, bundle=True).encode()
    with open(path, "wb") as file:
        file.write(data)


def render_svg(spec: Mapping[str, Any], title: str) -> str:
    """Return a Vega-Lite spec, with its data in it, as an `<svg>` element for an HTML page: its view box scales.

    The theme is added, and the title, for readers who cannot see the chart. Raises ValueError where the spec is none.
    """
    vl_convert = load_engine()
    themed = {**_SCHEMA, **spec, "config": _load("theme")}
    # No base URL is allowed: a spec that refers to data elsewhere fails, and nothing is fetched.
    svg = vl_convert.vegalite_to_svg(themed, allowed_base_urls=[])
    root = ElementTree.fromstring(svg)
    width = root.get("width", "320")
    _clean(root)
    root.attrib.update({"role": "img", "aria-label": title, "style": f"max-width:{width}px"})
    return ElementTree.tostring(root, encoding="unicode")


def join_charts(specs: Sequence[Mapping[str, Any]], legend: str) -> dict[str, Any]:
    """Return charts as one Vega-Lite spec for a file: with the theme, and the page's light colors."""
    style = files("curate.ask.report").joinpath("style.css").read_text("utf-8")
    colors = dict(_VARIABLE.findall(style.partition("}")[0]))
    title = {"text": legend, "anchor": "start", "color": MUTED, "fontWeight": "normal", "fontSize": 12}
    joined = {"title": title, "concat": list(specs), "columns": 3, "padding": 12, "config": _load("theme")}
    joined["background"] = colors["paper"]
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: colors[match[1]], json.dumps(joined))
    whole: dict[str, Any] = json.loads(text)
    return whole


def _clean(element: ElementTree.Element) -> None:
    """Remove all but what draws, and turn the description of a mark into its tooltip."""
    element.tag = element.tag.rpartition("}")[2]
    description = element.get("aria-label") if element.get("aria-roledescription") not in _FRAMES else None
    for name in [name for name in element.attrib if name.rpartition("}")[2].lower().startswith(_DROPPED)]:
        # The size of the svg follows from its view box; rectangles keep their sizes.
        if not (element.tag == "rect" and name in ("width", "height")):
            del element.attrib[name]
    for child in list(element):
        if child.tag.rpartition("}")[2] not in _ELEMENTS or child.get("display") == "none":
            element.remove(child)
        else:
            _clean(child)
    if description:
        title = ElementTree.Element("title")
        title.text = description
        element.insert(0, title)


def layers(
    data: Sequence[Mapping[str, Any]], *marks: Mapping[str, Any], width: int = 300, height: int = HEIGHT
) -> dict[str, Any]:
    """Return a spec of layers over the same rows."""
    return {"width": width, "height": height, "data": {"values": list(data)}, "layer": list(marks)}


def before_and_after(x: Mapping[str, Any], top: float) -> list[dict[str, Any]]:
    """Return layers that compare two histograms: grey steps for the field `before`, a line for `after`, both shares.

    Over them are invisible bars with the tooltips of the field `tooltip`, from the x of a row to its field `to`.
    """
    marks: list[dict[str, Any]] = _load("histogram")
    for mark in marks:
        mark["encoding"]["x"] = x
    for mark in marks[:2]:
        mark["encoding"]["y"]["scale"] = {"domain": [0, top], "nice": False}
    return marks


def log_axis(field: str, title: str, rows: Sequence[Mapping[str, Any]], **axis: Any) -> dict[str, Any]:
    """Return the logarithmic axis of a field of rows, from 1 to its largest value."""
    highest = max(10, *(row[field] for row in rows))
    scale = {"type": "log", "domain": [1, highest], "nice": False}
    ticks = {"values": [10**power for power in range(1 + math.ceil(math.log10(highest)))], "format": "~s"}
    return {"field": field, "type": "quantitative", "scale": scale, "title": title, "axis": ticks | axis}


def compare_lines(
    rows: Sequence[Mapping[str, Any]], title: str, axes: Mapping[str, Any], *marks: Mapping[str, Any], **line: Any
) -> tuple[str, str]:
    """Return charts, wide and for phones, of two lines: of rows whose field `series` is before, and of those kept.

    Of the lines are `axes`, x and y, and further properties; over them are `marks`, and at each row a tooltip.
    """
    before, kept, tooltips = _load("lines")
    for mark in (before, kept, tooltips):
        mark["encoding"] |= axes
    for mark in (before, kept):
        mark["mark"] |= line
    wide, narrow = (
        render_svg(layers(rows, before, kept, *marks, tooltips, width=width, height=height), title)
        for width, height in ((640, 320), (300, 220))
    )
    return wide, narrow


def mark_threshold(
    values: Mapping[str, Any],
    at: Mapping[str, Any],
    label: Mapping[str, Any],
    text_at: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return a dashed line at a value of an axis, with its label there, or at the axes `text_at`."""
    data, texts = {"data": {"values": [values]}}, {**(text_at or at), "text": {"field": "label"}}
    return [
        {**data, "mark": THRESHOLD, "encoding": at},
        {**data, "mark": {"type": "text", "align": "left", **label}, "encoding": texts},
    ]


class Bin(NamedTuple):
    """A bin of two histograms: its name and edges, and how many rows of each set are in it."""

    name: str
    low: float
    high: float
    before: int
    after: int


def compare_counts(
    rows: Sequence[Mapping[str, int]], longest: int, x: Mapping[str, Any], title: str, shift: float = 0, **options: Any
) -> tuple[str, Table]:
    """Return the chart of two histograms of integers as SVG, and the table of its numbers: see `describe_bins`.

    Rows have n, and how many there are before and after; `longest` stands for more too.
    """
    counts = {row["n"]: row for row in rows}
    none = {"before": 0, "after": 0}
    names = {longest: f"{longest} and more"}
    bins = [
        Bin(names.get(n, str(n)), n - shift, n + 1 - shift, *(counts.get(n, none)[side] for side in none))
        for n in range(max(counts) + 1)
    ]
    spec, table = describe_bins(bins, x, **options)
    return render_svg(spec, title), table


def describe_bins(
    bins: Sequence[Bin],
    x: Mapping[str, Any],
    sets: tuple[str, str] = ("pool", "kept"),
    marks: Sequence[Mapping[str, Any]] = (),
    room: float = 0.05,
) -> tuple[dict[str, Any], Table]:
    """Return the spec of a chart of two histograms, each as shares of its own total, and the table of its numbers.

    `x` is the horizontal axis, `sets` are the names of the two, `marks` layers over them; `room` is above the highest
    value, as a part of it.
    """
    before, after = sum(part.before for part in bins), sum(part.after for part in bins)
    heads = ("bin", *sets, *(f"{name}, share" for name in sets))
    rows: list[dict[str, Any]] = []
    numbers = []
    for name, low, high, old, new in bins:
        shares = percent(old, before), percent(new, after)
        tooltip = f"{name}: {sets[0]} {shares[0]} ({count(old)}), {sets[1]} {shares[1]} ({count(new)})"
        heights = old / (before or 1), new / (after or 1)
        rows.append({"from": low, "to": high, "before": heights[0], "after": heights[1], "tooltip": tooltip})
        numbers.append(dict(zip(heads, (name, old, new, *heights), strict=True)))
    scale = {"domain": [bins[0].low, bins[-1].high], "nice": False, **x.get("scale", {})}
    axis = {"field": "from", "type": "quantitative", **x, "scale": scale}
    top = (1 + room) * (max(max(row["before"], row["after"]) for row in rows) or 1)
    end = {**rows[-1], "from": bins[-1].high, "tooltip": None}
    spec = layers([*rows, end], *before_and_after(axis, top), *marks)
    return spec, Table.of(numbers, folded=True)
