"""The page of the named queries, sql/README.md, made of their headers: `python -m tests.ask.library` writes it."""

from pathlib import Path

import jinja2

from curate.ask.library import THEMES, named_queries
from curate.recipe.files import shipped_folder

PAGE = shipped_folder("sql") / "README.md"


def library_page() -> str:
    """Return the page, in Markdown, by theme."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(Path(__file__).with_suffix(".md").read_text("utf-8"))
    kinds = {"column": "a column of", "number": "a numeric column of"}
    return template.render(themes=THEMES, queries=named_queries(), kinds=kinds)


if __name__ == "__main__":
    PAGE.write_text(library_page(), "utf-8")
