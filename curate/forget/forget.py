"""Takes samples out of a published run, and keeps them out.

In: a run folder and what to forget. Out: the folder without the rows that were named, and without those linked to them: of
the same uid, URL or image (also as an attachment of a published sample), and those that lost to one of them as duplicates,
which a later run would keep instead. Only files that hold some of them are rewritten. An image shared by many URLs (a
placeholder, say) links all their rows: `dry_run` counts them beforehand. Perceptual hashes are not in the record, since they
show what an image looks like: a re-encoded copy is recognised while it is in the pool as a duplicate, not when it is new.

Killed at any moment it leaves a folder that no reader takes for finished, and that can be completed: before the record is
written, `tmp/` holds a mark and `_SUCCESS` is deleted; the record holds all that is to be done, and every step may be
repeated; `_SUCCESS` comes last. `curate run` of the folder's recipe completes it too, since the record blocks its items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from curate.errors import RecipeError, RunError
from curate.forget.republish import republish
from curate.forget.shards import find_shards
from curate.forget.survey import Survey, link_items, survey
from curate.publish.settings import PublishSettings
from curate.run.opened import open_context
from curate.store.facts import ForgottenFacts
from curate.store.forgotten import Record, counts, origins
from curate.store.items import KINDS, NOTHING, Hashes, Items
from curate.store.layout import FORGETTING_FILE, MANIFEST_FILE, REPORT_FILE, RUN_FILE, SUCCESS_FILE
from curate.store.lock import clear_tmp, locked
from curate.store.manifest import no_run
from curate.store.store import RunStore


@dataclass(frozen=True)
class Forgotten:
    """What a request found, and what was, or would be, done.

    Attributes:
        requested: how many items were requested.
        known: how many of them were in the record already.
        absent: those that name no row of the pool.
        rows: the rows of the pool that they name or are linked to.
        shards: the shards that hold those of them that were published.
        completed: an earlier request that had been interrupted was carried out first.
        lost: how many items that request had, where it was interrupted before they were recorded, so that they must be
            requested again; else 0.
        report_deleted: whether there was a report, which was deleted.
        has_images: whether the pool has images; without, no row is recognised by a sha256, whatever its own columns hold.
    """

    requested: int
    known: int
    absent: Items
    rows: Survey
    shards: tuple[str, ...]
    has_images: bool
    completed: bool = False
    lost: int = 0
    report_deleted: bool = False

    @property
    def changes(self) -> bool:
        """Whether there was anything to do."""
        return self.known < self.requested or bool(self.rows.units)


def forget(url: str, requested: Items, dry_run: bool = False) -> Forgotten:
    """Forget items, or report what that would change.

    Args:
        url: the run folder.
        requested: none to only complete a request that was interrupted.
        dry_run: change nothing.

    Raises:
        RecipeError: there is no run.
        RunError: it is not finished, or another `forget` is at work.
    """
    folder = RunStore(url)
    if not folder.exists(RUN_FILE):
        raise no_run(folder, url)
    interrupted = _is_interrupted(folder)
    if not len(requested) and (dry_run or not interrupted):
        why = (
            "an earlier request was interrupted, and is completed without --dry-run"
            if interrupted
            else "no earlier request was interrupted"
        )
        raise RecipeError(f"{url}: nothing is named, and {why}; give --uids, --urls or --sha256")
    if dry_run:
        return _plan(folder, requested)[0]
    with locked(folder, "forget"):
        interrupted = _is_interrupted(folder)  # again: the one before may have just ended
        lost = _complete(folder) if interrupted else 0
        has_report = folder.exists(REPORT_FILE)
        result, record = _plan(folder, requested)
        if result.changes:
            folder.write_json(FORGETTING_FILE, {"items": len(requested), "record": record.facts.to_json()})
            folder.delete(SUCCESS_FILE)
            record.write(folder)
            republish(folder, record.items, result.rows.units)
        clear_tmp(folder)  # what was killed may have left copies there
    return replace(result, completed=interrupted, lost=lost, report_deleted=has_report and result.changes)


def _is_interrupted(folder: RunStore) -> bool:
    """Return whether a request was begun and not completed. Raises RunError where the run is unfinished for another reason."""
    if folder.exists(SUCCESS_FILE) and folder.exists(MANIFEST_FILE):
        return False
    if not folder.exists(SUCCESS_FILE) and folder.exists(FORGETTING_FILE):
        return True
    raise RunError(f"{folder.url}: the run is not finished (no {SUCCESS_FILE}); run its recipe again, then forget")


def _complete(folder: RunStore) -> int:
    """Complete an interrupted request. Returns how many of its items are lost (see `lost_items`)."""
    record = Record.read_checked(folder)
    lost = lost_items(folder, record)
    republish(folder, record.items, None)
    return lost


def lost_items(folder: RunStore, record: Record) -> int:
    """Return how many items an interrupted request had, if they were not recorded; 0 where there is none."""
    if not folder.exists(FORGETTING_FILE):
        return 0
    begun = folder.read_json(FORGETTING_FILE)
    is_recorded = "record" in begun and record.extends(ForgottenFacts.model_validate(begun["record"]))
    return 0 if is_recorded else int(begun["items"])


def _plan(folder: RunStore, requested: Items) -> tuple[Forgotten, Record]:
    """Return what a request finds, and the record with it."""
    context, units = open_context(folder)
    settings = PublishSettings.of(context)
    record = Record.read_checked(folder)
    items = link_items(settings, units, requested) if len(requested) else NOTHING
    found = survey(settings, units, requested, items)
    shards = tuple(find_shards(folder, items))
    result = Forgotten(
        requested=len(requested),
        known=len(requested) - len(requested - record.items),
        absent=_absent(requested, found.names) - record.items,
        rows=found,
        shards=shards,
        has_images=settings.pool.images,
    )
    rows = counts(items, found.names)
    return result, record.append(items, origins(items, requested), rows=rows, shards=len(shards))


def _absent(requested: Items, names: Mapping[str, Hashes]) -> Items:
    """Return the requested items that are no name of a row."""
    return Items(**{kind: requested[kind][~np.isin(requested[kind], names[kind])] for kind in KINDS})
