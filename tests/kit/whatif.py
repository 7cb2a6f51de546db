"""Estimates of what a finished run would keep with other settings."""

from curate.ask.text_pages import render_page
from curate.ask.whatif.answer import answer
from curate.ask.whatif.surviving import open_finished


def whatif(url, overrides):
    """The yield of the run in a folder with other settings."""
    return answer(open_finished(url), overrides)


def warnings_of(found):
    """The warnings of an estimate, as `curate plan` prints them."""
    page = str(render_page("plan", part="warnings", estimate=found))
    return [line.removeprefix("warning: ") for line in page.splitlines()]
