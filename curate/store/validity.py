"""Decides whether a file of a run is valid. Resume and reuse both use this one rule.

A file is valid if its bytes have a digest that was recorded for it. A writer records the digest before it moves the
file, in `parts/digests` or in the object's metadata. Once the run is published, the manifest has the digest. Several
attempts may have recorded digests: the file is valid if any of these attempts wrote it.

A table must also have the wanted key. A table that is not final, because another start may find more, has no key. It is
valid until the next start, as long as a commit with its name shows that it was written since the last start.

The first valid file wins: a later attempt keeps it, and discards its own.
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
    """Return whether a table's footer has this key.

    With `since_start`, a table without a key also counts if it was written since the last start. Raises OSError if the
    read fails, because then nobody knows.
    """
    stated = folder.key(path)
    if since_start and stated not in (None, key) and folder.complete_commit(path):
        stated = folder.key(path) or key  # the file may have been replaced in the meantime
    return bool(key) and stated == key


def valid_digest(folder: RunStore, path: str, is_new: bool = False) -> Digest | None:
    """Read a file, and return its digest if it is valid; otherwise, log the reason and return None. Raises OSError.

    With `is_new`, only digests recorded after the run was published count, not those in the manifest. After an
    attempt has recorded the digest of its own file, it uses this to check the file that is in place.
    """
    if is_new:
        recorded = folder.recorded(path)
        return recorded if recorded is not None and recorded.is_of(folder.digest(path)) else None
    digest, now = recorded_digest(folder, path), folder.digest(path)
    if digest is None:  # this may be true of all files, so it is logged once
        if path == process_cache(f"unknown in {folder.url}", lambda: path):
            error = "its digest was not recorded; curate recomputes it and every other such file"
            _log.warning("%s: %s", folder.path(path), error)
        return None
    if not digest.is_of(now):  # a worker without connection may have recorded its digest in a published run
        digest = _listed(folder, path) or digest
    if digest.is_of(now):
        return digest
    _log.warning("%s: differs from what curate wrote; curate recomputes it", folder.path(path))
    return None


def recorded_digest(folder: RunStore, path: str) -> Digest | None:
    """Return the digest recorded for a file of a run. The file is read only if there are several digests."""
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
    """Return the line that a file of an unfinished run will have in the manifest. Raises DamagedError."""
    digest = recorded_digest(folder, path)
    if digest is None:
        raise DamagedError(f"{folder.path(path)}: its digest was not recorded; run again to recompute it")
    return Published(path, digest.rows if rows is None else rows, digest.bytes, digest.sha256)
