"""What describes a run beside its tables and shards, made from them and the run's facts; then the manifest and `_SUCCESS`.

In: a run folder whose tables, shards, shards/sizes.json, uids.npy, failures.parquet and entries.parquet stand (and
forgotten.parquet, where something was forgotten), and what run.json is to hold. Publishing ends here, and so does what changes a published run.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from curate.publish.card import card_text
from curate.publish.content import count_content
from curate.publish.croissant import croissant
from curate.publish.statistics import build_statistics
from curate.publish.views import write_views
from curate.store.facts import RunFacts, write_facts
from curate.store.forgotten import Record
from curate.store.layout import (
    CARD_FILE,
    CROISSANT_FILE,
    ENTRIES_FILE,
    FAILURES_FILE,
    FORGOTTEN_FILE,
    REPORT_FILE,
    RUN_FILE,
    SIZES_FILE,
    STATISTICS_FILE,
    SUCCESS_FILE,
    UIDS_FILE,
    VIEWS_FILE,
)
from curate.store.manifest import Published, digest_file, write_manifest
from curate.store.store import RunStore


def describe_run(folder: RunStore, run: RunFacts, digests: Iterable[Published]) -> None:
    """Writes run.json, the card, croissant.json, stats.duckdb and views.sql, then the manifest, then `_SUCCESS`.

    A report that stands is of the run as it was: it is removed, and `curate report` writes another.

    Args:
        folder: the run folder.
        run: what run.json will hold, but for `content` and `forgotten`, which are found here.
        digests: the manifest's lines of all tables and shards.
    """
    digests = list(digests)
    record = Record.read(folder)
    run = run.changed(
        forgotten=record.facts if len(record) else None,
        content=count_content(folder, digests, run.pool.images),
    )
    folder.delete(REPORT_FILE)
    write_facts(folder, run)
    folder.write_bytes(CARD_FILE, card_text(run).encode())
    folder.write_json(CROISSANT_FILE, croissant(run, digests, _columns(folder, digests)))
    build_statistics(folder, run)
    write_views(folder)
    rest = [
        FAILURES_FILE,
        ENTRIES_FILE,
        SIZES_FILE,
        RUN_FILE,
        CARD_FILE,
        CROISSANT_FILE,
        STATISTICS_FILE,
        VIEWS_FILE,
    ]
    rest += [FORGOTTEN_FILE] if len(record) else []
    lines = [digest_file(folder, UIDS_FILE, run.kept), *(digest_file(folder, path) for path in rest)]
    write_manifest(folder, [*digests, *lines])
    folder.write_bytes(SUCCESS_FILE, b"")


def _columns(folder: RunStore, digests: list[Published]) -> pa.Schema | None:
    """The schema of the Parquet files in shards/; None where there are none."""
    paths = [line.path for line in digests if line.path.startswith("shards/") and line.path.endswith(".parquet")]
    if not paths:
        return None
    with folder.open(min(paths)) as file:
        return pq.read_schema(file)
