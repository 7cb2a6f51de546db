"""Pages made by templates: values are never markup, and rows of tables are aligned."""

import jinja2
import pytest
from rich.style import Style

from curate.ask import text_pages
from curate.ask.text_pages import render_page

PAGE = """{# a page -#}
[bold]{{ title }}[/]
% for name, value in rows
  ¦ {{ name }} ¦> {{ value }}
% endfor
{{ blank }}
{{ hang(4) }}  {{ rows[0][0] }} → {{ rows[1][0] }}
"""


@pytest.fixture(autouse=True)
def template(monkeypatch):
    """The template above as the only one."""
    environment = text_pages._environment().overlay(loader=jinja2.DictLoader({"page.txt": PAGE}))
    monkeypatch.setattr(text_pages, "_environment", lambda: environment)


def test_values_are_never_markup():
    rows = [("[red", 1), ("b]¦ \\[/]", 1000), ("a\x1b[2J\n", 30)]
    page = render_page("page", title="[italic]T[/] \\", rows=rows)
    assert str(page).splitlines() == [
        "[italic]T[/] \\", "  [red           1", "  b]¦ \\[/]    1000", "  a\\x1b[2J\\n    30", "", "  [red → b]¦ \\[/]",
    ]  # fmt: skip
    first = page.lines[0].text
    assert [span.style for span in first.spans if len(first)] in (["bold"], [Style(bold=True)])
    assert [line.hang for line in page.lines] == [0, 0, 0, 0, 0, 4]
    with pytest.raises(jinja2.UndefinedError):
        render_page("page", title="T")
