"""Files of charts: a Vega-Lite spec as SVG, PNG or HTML, by the end of the file's name; drawn offline."""

from collections.abc import Mapping
from typing import Any

from curate.base.process import check_address_space

KINDS = ("svg", "png", "html")
_ENGINE_BYTES = 100_000_000_000  # of address space that V8 reserves, hardly any of which it uses


def load_engine() -> Any:
    """Return the library that draws charts. Raises RunError where a limit would end the process."""
    check_address_space(_ENGINE_BYTES, "drawing charts")
    import vl_convert  # here: a JavaScript engine, 0.4 s to start

    return vl_convert


def write_chart(path: str, spec: Mapping[str, Any]) -> None:
    """Write a chart, whose data are in its spec, to a file whose name ends in one of KINDS. Raises OSError."""
    vl_convert = load_engine()
    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", **spec}
    kind = path.rpartition(".")[2].lower()
    if kind == "png":
        data = vl_convert.vegalite_to_png(whole, scale=2, allowed_base_urls=[])
    elif kind == "svg":
        data = vl_convert.vegalite_to_svg(whole, allowed_base_urls=[]).encode()
    else:
        data = vl_convert.vegalite_to_html(whole, bundle=True).encode()
    with open(path, "wb") as file:
        file.write(data)
