"""Charts: SVG that draws and does nothing else, with texts escaped, colors left to the page, tooltips on marks."""

from xml.etree import ElementTree

import pytest

from curate.ask.report.charts import Bin, describe_bins, render_svg


def test_nothing_is_fetched():
    encoding = {"x": {"field": "a", "type": "quantitative"}}
    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        render_svg({"data": {"url": "http://127.0.0.1:9/x.json"}, "mark": "point", "encoding": encoding}, "none")


@pytest.mark.parametrize("name", ["a\\u", "a\\x01", "a\\", 'a\\" + 1 + "', "datum.x", "a[0].b", "${x}", "a' + \"b"])
def test_a_name_is_no_expression(name):
    bins = [Bin(f"about {n}", n, n + 1, 1, 1) for n in (1, 2)]
    root = ElementTree.fromstring(render_svg(describe_bins(bins, name, {})[0], name))
    assert name in {element.text for element in root.iter("text")}
    half = "pool 50.00% (1), kept 50.00% (1)"
    assert {element.text for element in root.iter("title")} == {f"about {n}: {half}" for n in (1, 2)}
