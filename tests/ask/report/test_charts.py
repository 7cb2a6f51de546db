"""Charts: SVG that draws and does nothing else, with texts escaped, colors left to the page, tooltips on marks."""

from xml.etree import ElementTree

import pytest

from curate.ask.report.charts import Bin, describe_bins, render_svg

EVIL = "x</text><script>alert(1)</script><b onload=1>&amp;'\""


def chart():
    rows = [{"a": EVIL, "b": 3, "tooltip": EVIL}, {"a": "plain", "b": 5, "tooltip": "five"}]
    x, y = {"field": "a", "type": "nominal"}, {"field": "b", "type": "quantitative"}
    bars = {
        "mark": {"type": "bar", "color": "var(--kept)", "aria": True},
        "encoding": {"x": x, "y": y, "description": {"field": "tooltip"}},
    }
    return render_svg({"width": 200, "height": 100, "data": {"values": rows}, "layer": [bars]}, EVIL)


def test_it_draws_and_nothing_else():
    root = ElementTree.fromstring(chart())
    assert {element.tag for element in root.iter()} == {"svg", "g", "path", "line", "text", "title"}
    names = {name for element in root.iter() for name in element.attrib if element is not root}
    assert not {name for name in names if name.startswith(("on", "aria", "role", "xlink", "href", "id", "class"))}
    assert root.attrib["aria-label"] == EVIL and root.attrib["role"] == "img" and "viewBox" in root.attrib
    assert {element.text for element in root.iter("title")} == {EVIL, "five"}
    assert any((element.text or "").startswith("x</text><script>") for element in root.iter("text"))
    assert "<script" not in chart()
    assert chart() == chart() and chart().count('fill="var(--kept)"') == 2


def test_nothing_is_fetched():
    encoding = {"x": {"field": "a", "type": "quantitative"}}
    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        render_svg({"data": {"url": "http://127.0.0.1:9/x.json"}, "mark": "point", "encoding": encoding}, "none")


@pytest.mark.parametrize("name", ["a\\u", "a\\x01", "a\\", 'a\\" + 1 + "', "datum.x", "a[0].b", "${x}", "a' + \"b"])
def test_a_name_is_no_expression(name):
    bins = [Bin(f"about {n}", n, n + 1, 1, 1) for n in (1, 2)]
    root = ElementTree.fromstring(render_svg(describe_bins(bins, name, {})[0], name))
    assert name in {element.text for element in root.iter("text")}
    half = "pool 50.00\N{NO-BREAK SPACE}% (1), kept 50.00\N{NO-BREAK SPACE}% (1)"
    assert {element.text for element in root.iter("title")} == {f"about {n}: {half}" for n in (1, 2)}
