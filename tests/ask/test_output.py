"""Pages: aligned columns, wrapping under themselves on a terminal, plain in a pipe, and text that is nothing but text."""

import io

import pytest
from rich.cells import cell_len

from curate.ask.output import Page, columns, line

NAMED = line(("  name    ", "cyan"), "word " * 50, hang=10)


def written(page, monkeypatch, width):
    for name, value in {"COLUMNS": str(width), "LINES": "50", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    file = io.StringIO()
    file.isatty = lambda: True
    page.write(file)
    return file.getvalue().splitlines()


def test_columns_align_whatever_the_script():
    rows = columns([["a", "1"], ["日本", "20"], ["é", ("300", "red")]], right=[1])
    assert [str(row).rstrip() for row in rows] == ["  a       1", "  日本   20", "  é     300"]
    assert len({cell_len(str(row).rstrip()) for row in rows}) == 1
    [row] = columns([["日" * 100, "x"]])
    assert "…  x" in str(row) and cell_len(str(row)) < 70


def test_plain_in_a_pipe():
    page = Page((line(("head", "bold"), ("  more", "dim")), line(), NAMED))
    file = io.StringIO()
    page.write(file)
    assert file.getvalue() == str(page) == f"head  more\n\n  name    {'word ' * 49}word\n"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_long_values_wrap_under_themselves(monkeypatch, width):
    lines = written(Page((NAMED,)), monkeypatch, width)
    assert len(lines) > 1 and all(cell_len(text.rstrip()) <= width for text in lines)
    assert lines[0].startswith("  name    word") and all(text.startswith(" " * 10 + "word") for text in lines[1:])
    assert " ".join(lines).split() == ["name", *["word"] * 50]


def test_text_is_no_markup_and_steers_nothing(monkeypatch):
    page = Page((line("[bold]x[/bold] [link=http://x]y[/link]", " :smile: \x1b[31m\u202e"),))
    for text in (str(page), "\n".join(written(page, monkeypatch, 100))):
        assert "[bold]x[/bold] [link=http://x]y[/link] :smile: \\x1b[31m\\u202e" in text and "\x1b" not in text
