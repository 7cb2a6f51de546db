"""Whether a file of a run is valid: the rule of resume and reuse, in one place.

A file is valid if its bytes have a digest that was recorded for it. Whoever writes a file records its digest first, in
`parts/digests` or in the metadata of its object; once the run is published, the manifest has it. Several attempts may
have recorded theirs: the file is valid if it is what any of them wrote.

A table must have the wanted key, too. A table that is not final, because another start may get more, has no key: it is
valid until the next start, for as long as a commit of its name says that it was written since this one.

The first valid file wins: a later attempt keeps it, and drops its own.
"""

import logging

from curate.base.errors import DamagedError
from curate.base.process import process_cache
from curate.store.layout import MANIFEST_FILE
from curate.store.local import Digest
from curate.store.manifest import Published, read_manifest
from curate.store.store import RunStore

_log = logging.getLogger(__name__)


def has_key(folder: RunStore, path: str, key: str, since_start: bool = False) -> bool:
    """Return whether a table was made with a key, by its footer; with `since_start`, also if it was written without one
    since the run's start. Raises OSError if it cannot be read now, so that nobody knows.
    """
    stated = folder.key(path)
    if since_start and stated not in (None, key) and folder.complete_commit(path):
        stated = folder.key(path) or key  # it may have been replaced
    return bool(key) and stated == key


def valid_digest(folder: RunStore, path: str, is_new: bool = False) -> Digest | None:
    """Read a file, and return its digest if it is valid; else log why not, and return None. Raises OSError.

    With `is_new`, only a digest that was recorded since the run was published counts, not one of the manifest: an
    attempt asks this about a file in its way, after it has recorded a digest of its own.
    """
    if is_new:
        recorded = folder.recorded(path)
        return recorded if recorded is not None and recorded.is_of(folder.digest(path)) else None
    digest, now = recorded_digest(folder, path), folder.digest(path)
    if digest is None:  # of all files, perhaps: once is enough
        if path == process_cache(f"unknown in {folder.url}", lambda: path):
            error = "its digest was not recorded; it is recomputed, as is every other such file"
            _log.warning("%s: %s", folder.path(path), error)
        return None
    if not digest.is_of(now):  # a worker that was cut off may have recorded its own in a published run
        digest = _listed(folder, path) or digest
    if digest.is_of(now):
        return digest
    _log.warning("%s: differs from what was written; it is recomputed", folder.path(path))
    return None


def recorded_digest(folder: RunStore, path: str) -> Digest | None:
    """Return the digest that was recorded for a file of a run, without reading the file if there is only one."""
    return folder.recorded(path) or _listed(folder, path)


def _listed(folder: RunStore, path: str) -> Digest | None:
    if not folder.exists(MANIFEST_FILE):
        return None

    def load() -> dict[str, Digest]:
        try:
            return {line.path: Digest(line.bytes, line.sha256, line.rows) for line in read_manifest(folder)}
        except DamagedError as error:
            _log.warning("%s", error)
            return {}

    manifest = f"manifest of {folder.url} "
    return process_cache(f"{manifest}{folder.state(MANIFEST_FILE)}", load, replaces=manifest).get(path)


def recorded_line(folder: RunStore, path: str, rows: int | None = None) -> Published:
    """Return the manifest's line of a file of a run at work, by its recorded digest. Raises DamagedError."""
    digest = recorded_digest(folder, path)
    if digest is None:
        raise DamagedError(f"{folder.path(path)}: its digest was not recorded; run again to recompute it")
    return Published(path, digest.rows if rows is None else rows, digest.bytes, digest.sha256)
