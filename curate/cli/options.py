"""Arguments and options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    csv = "csv"
    json = "json"


RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")]
FormatOption = Annotated[Format, typer.Option("--format", help="For people, for spreadsheets, for programs.")]
