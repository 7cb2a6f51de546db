"""`curate forget`: takes samples out of a published run, with a record."""

from typing import Annotated

import typer

from curate.errors import RecipeError
from curate.forget.forget import Forgotten
from curate.forget.forget import forget as forget_items
from curate.forget.lists import read_list
from curate.store.items import KINDS, NOTHING, hex_of
from curate.store.layout import FORGOTTEN_FILE, REPORT_FILE
from curate.wording import pluralise

_SHOWN = 20
_WORDS = {"uid": "uid", "url": "URL with sha256", "sha256": "image with sha256"}
FileOption = list[str] | None


def forget(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a finished run, local or remote.")],
    uids: Annotated[
        FileOption, typer.Option(metavar="FILE", help="uids, one a line, or a uids.npy; - is standard input.")
    ] = None,
    urls: Annotated[FileOption, typer.Option(metavar="FILE", help="URLs, one a line, as the pool spells them.")] = None,
    sha256: Annotated[FileOption, typer.Option(metavar="FILE", help="sha256 of images, one a line.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> None:
    """Take samples out of a run: only shards and tables that hold them are rewritten, and later runs keep them out.

    Without a list it carries out what was interrupted.
    """
    asked = NOTHING
    for kind, paths in zip(KINDS, (uids, urls, sha256), strict=True):
        for path in paths or ():
            items = read_list(path, kind)
            if not len(items):
                raise RecipeError(f"{path}: names nothing; accepted: at least one item, one a line")
            asked |= items
    found = forget_items(directory, asked, dry_run)
    print("\n".join(_lines(directory, found, dry_run)))


def _lines(directory: str, found: Forgotten, dry_run: bool) -> list[str]:
    """What was found and done."""
    lines = []
    if found.lost:
        lines = [
            f"{directory}: a request of {pluralise(found.lost, 'item')} was interrupted before it was noted: ask for it again"
        ]
    elif found.finished:
        lines = [f"{directory}: a request that had been interrupted is carried out"]
    if not found.asked:
        return lines
    if not found.changes:
        return [
            *lines,
            f"{directory}: nothing to do: {pluralise(found.asked, 'item')} asked for, and forgotten already",
        ]
    known = f", {found.known:,} of them forgotten already" if found.known else ""
    rewritten = f"{pluralise(len(found.shards), 'shard')}, {'to be' if dry_run else 'which was' if len(found.shards) == 1 else 'which were'} rewritten"
    rows, would = found.rows, "would be " if dry_run else ""
    lines += [
        _line("asked for", found.asked, f"{_items(found.asked)}{known}"),
        _line("rows of the pool", rows["asked"]),
        _line("and their duplicates", rows["joined"], "of the same uid, URL or image, or that had lost to one of them"),
        _line("of both, unreadable", rows["failed"]),
        _line("of both, published", found.kept, f"in {rewritten}"),
    ]
    if len(found.absent):
        lines.append(
            _line(
                "not in this pool",
                len(found.absent),
                f"{_items(len(found.absent))}, {would}blocked in later runs all the same",
            )
        )
        named = [f"  {_WORDS[kind]} {value}" for kind in KINDS for value in hex_of(found.absent[kind][:_SHOWN])]
        lines += named[:_SHOWN]
        if len(found.absent.sha256) and not found.images:
            lines.append(
                "  this pool has no images: nothing was compared with a sha256, nor with a column of that name"
            )
    if found.like:
        what = "published sample stays" if len(found.like) == 1 else "published samples stay"
        why = f"{what} that a row asked for had lost to as a near-duplicate; forget too what shows the same:"
        lines.append(_line("look at these", len(found.like), why))
        lines += [f"  uid {uid}" for uid in found.like[:_SHOWN]]
    if dry_run:
        return [*lines, f"{directory}: nothing was changed"]
    if found.report:
        lines.append(f"{REPORT_FILE} was deleted, since it may show them: `curate report {directory}` makes it anew")
    return [
        *lines,
        f"{directory}: forgotten, see {FORGOTTEN_FILE}; `curate verify {directory}` proves it. Copies, and runs that took tables of "
        "this one before, keep theirs: forget there too",
    ]


def _items(number: int) -> str:
    return "item" if number == 1 else "items"


def _line(what: str, count: int, more: str = "") -> str:
    return f"{what:20} {count:>10,} {more}".rstrip()
