"""What tests ask of a run that is not open."""

from collections.abc import Sequence

from curate.ask.whatif.answer import WhatIf, answer
from curate.ask.whatif.survivors import open_finished


def whatif(url: str, overrides: Sequence[str]) -> WhatIf:
    """The yield of the run in a folder with other settings."""
    return answer(open_finished(url), overrides)
