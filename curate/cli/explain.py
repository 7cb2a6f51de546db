"""`curate explain`: why a sample is in or out."""

from typing import Annotated

import typer

from curate.ask.explain import explain_sample
from curate.cli.standard_output import open_output


def explain(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")],
    sample: Annotated[str, typer.Argument(metavar="UID", help="The sample's uid (32 hex digits), URL or key.")],
) -> None:
    """Say of a sample why it is in or out: rules, entries, draw, duplicates, captions, and where it was published."""
    page = explain_sample(directory, sample)
    with open_output() as file:
        page.write(file)
