"""Text pages: facts in, styled lines out. The texts are in `templates/`, one file per page.

Templates are jinja2 templates with `%` before statements. Lines use rich's markup, such as [bold]…[/]; a value in
{{ }} is never parsed as markup, and its control characters are escaped. Lines that begin with ¦ are rows of a table:
¦ begins a cell, ¦> a right-aligned one.
"""

import shlex
from functools import cache
from itertools import groupby
from typing import Any

import jinja2
from markupsafe import Markup
from rich.text import Text

from curate.ask.output import Line, Page, columns, pad
from curate.base import wording

_SPECIAL = "[\\¦"  # special characters in templates; in values, control characters stand for them,
_HIDDEN = "\x01\x02\x03"  # since the values' own are escaped already
_HIDE, _SHOW = str.maketrans(_SPECIAL, _HIDDEN), str.maketrans(_HIDDEN, _SPECIAL)
_HANG = "\x04"  # ends the number of columns to indent a wrapped line by


def render_page(name: str, **facts: Any) -> Page:
    """Fill in a template with facts, named like its variables, and return the page."""
    rendered = _environment().get_template(f"{name}.txt").render(facts)
    lines: list[Line] = []
    for indent, group in groupby(rendered.split("\n")[:-1], _table_indent):
        texts = list(group)
        lines += map(_line, texts) if indent is None else _table(texts, indent)
    return Page(tuple(lines))


def _table_indent(line: str) -> int | None:
    """Return the indentation of a table row; None for other lines."""
    return line.index("¦") if line.lstrip(" ").startswith("¦") else None


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("curate.ask", "templates"),
        undefined=jinja2.StrictUndefined,
        line_statement_prefix="%",
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,  # to distinguish the output of macros from values
        finalize=_show_value,
        optimized=False,  # each page is rendered once, and optimizing takes longer
    )
    for name in ("pluralize", "format_bytes", "format_seconds", "all_digits", "describe_seen", "next_size"):
        environment.filters[name] = getattr(wording, name)
    environment.filters["pad"] = lambda text, width, right=False: pad(wording.escape(text), width, right)
    environment.filters |= {"quote": shlex.quote, "repr": repr}
    environment.filters["number"] = lambda value, form=",": format(value, form)
    environment.globals["hang"] = lambda indent: Markup(f"{indent}{_HANG}")
    environment.globals["blank"] = ""  # an empty line: jinja2 drops one that follows a statement
    return environment


def _show_value(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(wording.escape(str(value)).translate(_HIDE))


def _line(text: str) -> Line:
    indent, _, rest = text.rpartition(_HANG)
    return Line(_parse(rest), int(indent or 0))


def _parse(markup: str) -> Text:
    text = Text.from_markup(markup, emoji=False)
    text.plain = text.plain.translate(_SHOW)
    return text


def _table(lines: list[str], indent: int) -> list[Line]:
    rows = [line.split("¦")[1:] for line in lines]
    right = {index for row in rows for index, cell in enumerate(row) if cell.startswith(">")}
    cells = [[_parse(cell.removeprefix(">").removeprefix(" ").removesuffix(" ")) for cell in row] for row in rows]
    return columns(cells, right, indent)
