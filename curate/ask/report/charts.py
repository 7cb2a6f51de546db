"""Charts as static SVG: Vega-Lite specs as dicts in, SVG for an HTML page out, without a network or a script.

Colors are CSS variables, which the page defines for light and dark mode (`style.css`); `theme.json` is the Vega-Lite
config. A mark with `aria: true` that encodes `description` gets it as a native tooltip. Pass untrusted texts through
`blocks.clean` first.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from xml.etree import ElementTree

from curate.ask.report.blocks import TEMPLATES, Figure, Table
from curate.base.process import check_address_space

KINDS = ("svg", "png", "html")  # of files
_ENGINE_BYTES = 100_000_000_000  # address space that V8 reserves; it uses hardly any of it
_SCHEMA = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json"}

# No descriptions by default: Vega-Lite builds expressions from unescaped titles, so a backslash in a column name would
# break the chart.
_VARIABLE = re.compile(r"--([\w-]+): (#\w+);")
_ELEMENTS = {"svg", "g", "path", "line", "text", "tspan", "rect", "circle", "title"}
_FRAMES = {"axis", "legend", "title", "group mark container", None}
_DROPPED = ("aria-", "role", "class", "id", "version", "width", "height", "on", "href", "pointer-events")


def load_engine() -> Any:
    """Return the library that draws charts. Raises RunError if a memory limit would kill the process."""
    check_address_space(_ENGINE_BYTES, "drawing charts")
    import vl_convert  # imported late: a JavaScript engine that takes 0.4 s to start

    return vl_convert


def write_chart(path: str, spec: Mapping[str, Any]) -> None:
    """Write a chart, with its data in the spec, to a file whose suffix is one of KINDS. Raises OSError."""
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

    Adds the theme, and the title for screen readers. Raises ValueError if the spec is invalid.
    """
    vl_convert = load_engine()
    themed = {**_SCHEMA, **spec, "config": fill_spec("theme")}
    # No base URL is allowed, so a spec that refers to external data fails instead of fetching them.
    svg = vl_convert.vegalite_to_svg(themed, allowed_base_urls=[])
    root = ElementTree.fromstring(svg)
    width = root.get("width", "320")
    _clean(root)
    root.attrib.update({"role": "img", "aria-label": title, "style": f"max-width:{width}px"})
    return ElementTree.tostring(root, encoding="unicode")


def join_charts(figures: Sequence[Figure], legend: str) -> dict[str, Any]:
    """Return the charts of figures as one Vega-Lite spec for a file, with the theme and the page's light colors."""
    style = files("curate.ask.report").joinpath("style.css").read_text("utf-8")
    colors = dict(_VARIABLE.findall(style.partition("}")[0]))
    specs = [{"title": figure.title, **(figure.spec or {})} for figure in figures]
    title = {"text": legend, "anchor": "start", "color": "var(--muted)", "fontWeight": "normal", "fontSize": 12}
    joined = {"title": title, "concat": specs, "columns": 3, "padding": 12, "config": fill_spec("theme")}
    joined["background"] = colors["paper"]
    text = re.sub(r"var\(--([\w-]+)\)", lambda match: colors[match[1]], json.dumps(joined))
    whole: dict[str, Any] = json.loads(text)
    return whole


def _clean(element: ElementTree.Element) -> None:
    """Remove the elements that draw nothing, and turn the description of a mark into its tooltip."""
    element.tag = element.tag.rpartition("}")[2]
    description = element.get("aria-label") if element.get("aria-roledescription") not in _FRAMES else None
    for name in [name for name in element.attrib if name.rpartition("}")[2].lower().startswith(_DROPPED)]:
        # The view box sets the size of the svg; rectangles keep their sizes.
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


def fill_spec(name: str, **facts: Any) -> dict[str, Any]:
    """Return a Vega-Lite spec from the template NAME.json."""
    spec: dict[str, Any] = json.loads(TEMPLATES.get_template(f"{name}.json").render(**facts))
    return spec


def draw_lines(rows: Sequence[Mapping[str, Any]], title: str, t: int | None, is_share: bool) -> tuple[str, str]:
    """Return two charts, a wide one and one for phones. Each has two lines, for the `series` before and kept.

    They plot samples by rank, or the share of matches by samples (`is_share`); see lines.json.
    """
    wide, narrow = (
        render_svg(fill_spec("lines", rows=rows, t=t, is_share=is_share, width=width, height=height), title)
        for width, height in ((640, 320), (300, 220))
    )
    return wide, narrow


class Bin(NamedTuple):
    """A bin shared by two histograms: its name, its edges, and the rows of each set in it."""

    name: str
    low: float
    high: float
    before: int
    after: int


def count_integers(rows: Sequence[Mapping[str, int]], longest: int, shift: float = 0) -> list[Bin]:
    """Return bins by the integer n, with the number of rows before and after; the bin `longest` includes all above."""
    counts = {row["n"]: (row["before"], row["after"]) for row in rows}
    names = {longest: f"{longest} and more"}
    return [Bin(names.get(n, str(n)), n - shift, n + 1 - shift, *counts.get(n, (0, 0))) for n in range(max(counts) + 1)]


def describe_bins(
    bins: Sequence[Bin],
    title: str,
    axis: Mapping[str, Any],
    sets: tuple[str, str] = ("pool", "kept"),
    thresholds: Sequence[tuple[str, float, bool]] = (),
    scale_type: str = "linear",
) -> tuple[dict[str, Any], Table]:
    """Return the spec for a chart of two histograms, each as shares of its own total, and a table of its numbers.

    `title` and `axis` configure the horizontal axis, `sets` names the two histograms; `thresholds` have a name, a
    value, and whether the name is to the left of the line.
    """
    before, after = sum(part.before for part in bins) or 1, sum(part.after for part in bins) or 1
    heads = ("bin", *sets, *(f"{name}, share" for name in sets))
    numbers = [(part.name, part.before, part.after, part.before / before, part.after / after) for part in bins]
    table = Table.of([dict(zip(heads, row, strict=True)) for row in numbers], folded=True)
    facts = {"bins": bins, "title": title, "axis": axis, "sets": sets, "thresholds": thresholds}
    return fill_spec("histogram", **facts, scale_type=scale_type), table
