"""`curate forget`: removes samples from a published run, and records the removal."""

from typing import Annotated

from typer import Exit, Option

from curate.ask.text_pages import render_page
from curate.base.errors import RecipeError
from curate.cli.common import RunArgument, print_lines
from curate.publish.forget.forget import forget as forget_items
from curate.publish.forget.lists import read_list
from curate.store.items import KINDS, NOTHING, hex_of

_SHOWN = 20
_NAMES = {"uid": "uid", "url": "URL with sha256", "sha256": "image with sha256"}
FileOption = list[str] | None


def forget(
    directory: RunArgument,
    uids: Annotated[FileOption, Option(metavar="FILE")] = None,
    urls: Annotated[FileOption, Option(metavar="FILE")] = None,
    sha256: Annotated[FileOption, Option(metavar="FILE")] = None,
    dry_run: Annotated[bool, Option("--dry-run")] = False,
) -> None:
    """Remove samples from a finished run, and record the removal."""
    requested, typed = NOTHING, dict[str, str]()
    for kind, paths in zip(KINDS, (uids, urls, sha256), strict=True):
        for path in paths or ():
            items = read_list(path, kind, typed)
            if not len(items):
                raise RecipeError(f"{path}: is empty; accepted: at least one item, one per line")
            requested |= items
    result = forget_items(directory, requested, dry_run)
    hashes = [(kind, value) for kind in KINDS for value in hex_of(result.absent[kind][:_SHOWN])]
    absent = [typed.get(value) or f"{_NAMES[kind]} {value}" for kind, value in hashes[:_SHOWN]]
    facts = {"directory": directory, "result": result, "dry_run": dry_run, "absent": absent}
    print_lines(*render_page("forgotten", **facts).lines)
    if len(result.absent):
        raise Exit(1)
