"""`curate forget`: take samples out of a published run, with a record."""

from collections.abc import Iterator
from typing import Annotated

from typer import Exit, Option

from curate.ask.output import Line, columns, line
from curate.base.errors import RecipeError
from curate.base.wording import pluralise
from curate.cli.common import RunArgument, print_lines
from curate.publish.forget.forget import Forgotten
from curate.publish.forget.forget import forget as forget_items
from curate.publish.forget.lists import read_list
from curate.store.items import KINDS, NOTHING, hex_of
from curate.store.layout import FORGOTTEN_FILE, REPORT_FILE

_SHOWN = 20
_NAMES = {"uid": "uid", "url": "URL with sha256", "sha256": "image with sha256"}
FileOption = list[str] | None


def forget(
    directory: RunArgument,
    uids: Annotated[
        FileOption, Option(metavar="FILE", help="uids, one per line, or a uids.npy; - is standard input.")
    ] = None,
    urls: Annotated[FileOption, Option(metavar="FILE", help="URLs, one per line, exactly as in the pool.")] = None,
    sha256: Annotated[FileOption, Option(metavar="FILE", help="sha256 of images, stored or as downloaded.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would change, and change nothing.")] = False,
) -> None:
    """Take samples out of a finished run, with a record.

    Only shards and tables that hold them are rewritten, and runs that reuse this one keep them out. Without a list it
    completes a request that was interrupted. The exit status is 1 if an item is neither in the pool nor forgotten: it
    may be misspelt.
    """
    requested, typed = NOTHING, dict[str, str]()
    for kind, paths in zip(KINDS, (uids, urls, sha256), strict=True):
        for path in paths or ():
            items = read_list(path, kind, typed)
            if not len(items):
                raise RecipeError(f"{path}: lists nothing; accepted: at least one item, one per line")
            requested |= items
    result = forget_items(directory, requested, dry_run)
    print_lines(*_lines(directory, result, dry_run, typed))
    if len(result.absent):
        raise Exit(1)


def _lines(directory: str, result: Forgotten, dry_run: bool, typed: dict[str, str]) -> Iterator[Line]:
    if result.lost:
        items = pluralise(result.lost, "item")
        yield line(f"{directory}: a request of {items} was interrupted before it was recorded; repeat it")
    elif result.completed:
        yield line(f"{directory}: a request that had been interrupted is now completed")
    if not result.requested:
        return
    if not result.changes:
        requested = f"{pluralise(result.requested, 'item')} requested"
        yield line(f"{directory}: nothing to do: {requested}, all forgotten already")
        return
    yield from _counts(result, dry_run, typed)
    if dry_run:
        yield line(f"{directory}: nothing was changed")
        return
    if result.report_deleted:
        yield line(f"{REPORT_FILE} was deleted, since it may show them: `curate report {directory}` writes a new one")
    yield line(f"{directory}: forgotten, see {FORGOTTEN_FILE}; `curate verify {directory}` checks it")
    copies = "Copies of this run, runs that reused its tables earlier, and pages of its samples still hold them"
    yield line(f"{copies}: run `curate forget` there too, and delete the pages.")
    blocked = f"with --reuse {directory}, or `blocklist: {directory}/{FORGOTTEN_FILE}` in its recipe"
    yield line(f"The inputs still hold them, too: a new run leaves them out {blocked}.")


def _counts(result: Forgotten, dry_run: bool, typed: dict[str, str]) -> Iterator[Line]:
    """Yield how many rows are concerned, and which items, as `typed`, or samples deserve a look."""
    rows_of = result.rows
    forgotten = f", {result.already_recorded:,} of them forgotten already" if result.already_recorded else ""
    verb = "to be" if dry_run else "which was" if len(result.shards) == 1 else "which were"
    shards = f", in {pluralise(len(result.shards), 'shard')}, {verb} rewritten" if result.shards else ""
    rows = [
        ("requested", result.requested, f"{_items(result.requested)}{forgotten}"),
        ("matching rows", rows_of.requested, ""),
        ("linked rows", rows_of.linked, "with an equal uid, URL or image, or dropped as their duplicates"),
        ("unreadable", rows_of.failed, "of all these rows"),
        ("published", rows_of.kept, f"of all these rows{shards}"),
    ]
    listed: list[str] = []
    if absent := len(result.absent):
        blocked = f"{'would be ' * dry_run}blocked in runs that reuse this one"
        rows.append(("not in this pool", absent, f"{_items(absent)}, {blocked}"))
        values = [(kind, value) for kind in KINDS for value in hex_of(result.absent[kind][:_SHOWN])]
        listed += [typed.get(value) or f"{_NAMES[kind]} {value}" for kind, value in values[:_SHOWN]]
        if len(result.absent.sha256) and not result.has_images:
            listed.append("this pool has no images, so no sha256 was compared")
    yield from columns([(name, f"{count:,}", note) for name, count, note in rows], right=[1], indent=0)
    yield from (line(f"  {text}") for text in listed)
    if uids := rows_of.representatives:
        stay = pluralise(len(uids), "published sample stays", "published samples stay")
        yield line(f"{stay}, although a near-duplicate was requested; forget those that show the same too:")
        yield from (line(f"  uid {uid}") for uid in uids[:_SHOWN])


def _items(number: int) -> str:
    return "item" if number == 1 else "items"
