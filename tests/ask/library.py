"""Generates the pages sql/README.md and sql/queries.md from the headers of sql/*.sql, and sql/reasons.md from reasons.toml.

`python -m tests.ask.library` writes them. tests/ask/sql_pages/ has their templates.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

import jinja2

from curate.ask.library import THEMES, named_queries
from curate.base import schema
from curate.recipe.files import shipped_folder

FOLDER = shipped_folder("sql")
PAGES = (FOLDER / "README.md", FOLDER / "queries.md", FOLDER / "reasons.md")
REASONS = Path(schema.__file__).with_name("reasons.toml")
# Columns that many queries have with one meaning, which the page gives once.
_SHARED = {
    "source": "name of the source",
    "pool": "number of samples in the pool",
    "kept": "number of samples that were kept",
    "rate": "kept / pool",
    "measure": "name of the number",
    "group": "the group: a value of the column `by`",
    "entry": "the metadata entry",
    "kind": "kind of caption: recaption, fused, rewrite, or translation",
    "style": "name of the style; for a translation, its language",
    "reason": "reason code",
    "uid": "uid of the sample",
    "caption": "caption of the sample",
    "url": "URL of the sample",
}


def library_pages() -> dict[str, str]:
    """Return the pages in Markdown, by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "sql_pages"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "themes": THEMES,
        "queries": named_queries(),
        "kinds": {"column": "a column", "number": "a numeric column"},
        "shared": _SHARED,
        "lines_of": _lines_of,
        "reasons": tomllib.loads(REASONS.read_text()),
    }
    texts = {page.name: environment.get_template(page.name).render() for page in PAGES}
    return {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in texts.items()}


def _lines_of(columns: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each column with a meaning of its own, and one for consecutive columns without."""
    for is_shared, group in groupby(columns.items(), lambda column: _SHARED.get(column[0]) == column[1]):
        if is_shared:
            yield ", ".join(f"`{name}`" for name, _ in group)
        else:
            yield from (f"`{name}`: {meaning}" for name, meaning in group)


if __name__ == "__main__":
    for name, text in library_pages().items():
        (FOLDER / name).write_text(text, "utf-8")
