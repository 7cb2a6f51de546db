"""What describes a run beside its tables and shards, made from them and the run's facts; then the manifest and `_SUCCESS`.

In: a run folder whose tables, shards, shards/sizes.json, uids.npy, failures.parquet and entries.parquet stand (and
forgotten.parquet, where something was forgotten), and what run.json is to hold. Publishing ends here, and so does what changes a published run.
"""

from collections.abc import Iterable
from typing import Any

from curate.forget.record import RECORD, Record
from curate.job import ENTRIES_FILE, RUN_FILE
from curate.publish.card import card_text
from curate.publish.manifest import SUCCESS, Published, digest_file, write_manifest
from curate.publish.statistics import STATISTICS, build_statistics
from curate.schema import KEPT
from curate.shards.commit import Folder

CARD = "README.md"


def describe_run(folder: Folder, run: dict[str, Any], digests: Iterable[Published]) -> None:
    """Writes run.json, the card and stats.duckdb, then the manifest, then `_SUCCESS`.

    Args:
        folder: the run folder.
        run: what run.json will hold.
        digests: the manifest's lines of all tables and shards.
    """
    record = Record.read(folder)
    run = run | {"forgotten": record.facts} if len(record) else run
    folder.write_json(RUN_FILE, run)
    folder.write_bytes(CARD, card_text(run).encode())
    build_statistics(folder, run)
    rest = ["failures.parquet", ENTRIES_FILE, "shards/sizes.json", RUN_FILE, CARD, STATISTICS]
    rest += [RECORD] if len(record) else []
    lines = [digest_file(folder, "uids.npy", run["counts"][KEPT]), *(digest_file(folder, path) for path in rest)]
    write_manifest(folder, [*digests, *lines])
    folder.write_bytes(SUCCESS, b"")
