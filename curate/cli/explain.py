"""`curate explain`: why a sample was kept or dropped."""

from typing import Annotated

import typer

from curate.ask.explain import explain_sample
from curate.cli.options import RunArgument
from curate.cli.standard_output import print_page


def explain(
    directory: RunArgument,
    sample: Annotated[str, typer.Argument(metavar="UID", help="The sample's uid (32 hex digits), URL or key.")],
) -> None:
    """Explain why a sample was kept or dropped: rules, entries, draw, duplicates, captions, published files."""
    print_page(explain_sample(directory, sample))
