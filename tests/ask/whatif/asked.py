"""What tests ask of a run that is not open."""

from collections.abc import Sequence

from curate.ask.text_pages import render_page
from curate.ask.whatif.answer import WhatIf, answer
from curate.ask.whatif.estimate import Estimate
from curate.ask.whatif.surviving import open_finished


def whatif(url: str, overrides: Sequence[str]) -> WhatIf:
    """The yield of the run in a folder with other settings."""
    return answer(open_finished(url), overrides)


def warnings_of(found: Estimate) -> list[str]:
    """The warnings of an estimate, as `curate plan` prints them."""
    page = str(render_page("plan", part="warnings", estimate=found))
    return [line.removeprefix("warning: ") for line in page.splitlines()]
