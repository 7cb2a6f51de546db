"""Files of charts: a Vega-Lite spec as SVG, PNG or HTML, by the end of the file's name; drawn offline."""

from collections.abc import Mapping
from typing import Any

KINDS = ("svg", "png", "html")


def write_chart(path: str, spec: Mapping[str, Any]) -> None:
    """Write a chart, whose data are in its spec, to a file whose name ends in one of KINDS. Raises OSError."""
    import vl_convert  # here: a JavaScript engine, 0.4 s to start

    whole, kind = (
        {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", **spec},
        path.rpartition(".")[2].lower(),
    )
    if kind == "png":
        data = vl_convert.vegalite_to_png(whole, scale=2, allowed_base_urls=[])
    elif kind == "svg":
        data = vl_convert.vegalite_to_svg(whole, allowed_base_urls=[]).encode()
    else:
        data = vl_convert.vegalite_to_html(whole, bundle=True).encode()
    with open(path, "wb") as file:
        file.write(data)
