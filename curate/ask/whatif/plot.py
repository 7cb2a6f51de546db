"""The plot of a sweep: expected rows over the values, with two standard errors of the draws, as a Vega-Lite chart.

In: points, as a spec that holds its data. Out: a file, SVG, PNG or HTML by its name, drawn offline and self-contained.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

from curate.ask.whatif.sweep import Point
from curate.ask.whatif.swept_number import SweptNumber
from curate.base.errors import RecipeError

_KINDS = ("svg", "png", "html")
_KEPT, _BEFORE, _MUTED = "#2563a8", "#9a9a9a", "#666666"


def check_plot(path: str) -> str:
    """Return the kind of a plot's file. Raises RecipeError where its name tells none, or it has no folder."""
    kind = path.rpartition(".")[2].lower()
    if kind not in _KINDS or "." not in path:
        raise RecipeError(f"--plot {path}: accepted: a name that ends in {', '.join('.' + kind for kind in _KINDS)}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise RecipeError(f"--plot {path}: no folder {os.path.dirname(path)}; accepted: a file in an existing folder")
    return kind


def write_plot(path: str, points: Sequence[Point], number: SweptNumber, kept: int) -> None:
    """Write the chart of a sweep; `kept` is what the run kept. Raises RecipeError as `check_plot`, or OSError."""
    import vl_convert  # here: a JavaScript engine, 0.4 s to start

    kind, spec = check_plot(path), sweep_chart(points, number, kept)
    if kind == "html":
        data = vl_convert.vegalite_to_html(spec, bundle=True).encode()
    elif kind == "png":
        data = vl_convert.vegalite_to_png(spec, scale=2)
    else:
        data = vl_convert.vegalite_to_svg(spec).encode()
    with open(path, "wb") as file:
        file.write(data)


def sweep_chart(points: Sequence[Point], number: SweptNumber, kept: int) -> dict[str, Any]:
    """Return the Vega-Lite spec: expected rows with their band, survivors above, and what the run kept, dashed."""
    rows = [
        {
            "value": point.value,
            "rows": point.expected,
            "low": max(0.0, point.expected - 2 * point.error),
            "high": point.expected + 2 * point.error,
            "survivors": point.survivors,
        }
        for point in points
        if point.expected is not None and point.error is not None
    ]
    text = f"{number.key}={number.before}…{number.after}" if number.before or number.after else number.key
    title = re.sub("<(?=[/!a-zA-Z])", "<\u200b", text)  # the spec is in a script of the HTML, which a tag would end
    scale = {"type": "log"} if number.logarithmic else {"zero": False}
    x = {"field": "value", "type": "quantitative", "scale": scale, "title": title}

    def y(field: str) -> dict[str, Any]:
        return {"field": field, "type": "quantitative", "title": "rows", "axis": {"format": "~s"}}

    band = {"x": x, "y": y("low"), "y2": {"field": "high"}}
    run_line = {"data": {"values": [{"kept": kept, "label": f"the run kept {kept:,}"}]}}
    run_y = {"field": "kept", "type": "quantitative"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 560,
        "height": 320,
        "background": "white",
        "config": {"mark": {"aria": False}},  # descriptions would be made of titles, which Vega-Lite does not escape
        "title": {"text": "Expected rows kept", "subtitle": "grey: rows left when balancing begins", "anchor": "start"},
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "line", "color": _BEFORE}, "encoding": {"x": x, "y": y("survivors")}},
            {"mark": {"type": "area", "color": _KEPT, "opacity": 0.25}, "encoding": band},
            {"mark": {"type": "line", "color": _KEPT, "point": {"color": _KEPT}}, "encoding": {"x": x, "y": y("rows")}},
            {**run_line, "mark": {"type": "rule", "strokeDash": [4, 4], "color": _MUTED}, "encoding": {"y": run_y}},
            {
                **run_line,
                "mark": {"type": "text", "align": "left", "dx": 4, "dy": -6, "color": _MUTED},
                "encoding": {"y": run_y, "x": {"value": 0}, "text": {"field": "label"}},
            },
        ],
    }  # fmt: skip
