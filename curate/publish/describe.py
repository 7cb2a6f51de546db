"""What describes a run besides its tables and shards, made from the run's facts; then the manifest and `_SUCCESS`.

In: a run folder with its tables, shards, shards/sizes.json, uids.npy, failures.parquet and entries.parquet (and
forgotten.parquet, where something was forgotten), and what run.json is to hold. Publishing ends here, and so does what changes
a published run.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from curate.output.output_format import find_output
from curate.publish.audit import Drops
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

_FILES = (FAILURES_FILE, ENTRIES_FILE, SIZES_FILE, RUN_FILE, CARD_FILE, CROISSANT_FILE, STATISTICS_FILE, VIEWS_FILE)


def describe_run(store: RunStore, facts: RunFacts, digests: Iterable[Published], drops: Drops) -> None:
    """Write run.json, the card, croissant.json, stats.duckdb and views.sql, then the manifest, then `_SUCCESS`.

    An existing report describes the run as it was: it is removed, and `curate report` writes another.

    Args:
        store: the run folder.
        facts: what run.json will hold, but for `content` and `forgotten`, which are found here.
        digests: the manifest's lines of all tables and shards.
        drops: rows by source and rule, None for kept ones.
    """
    digests = list(digests)
    record, kind = Record.read(store), find_output(facts.pool.images)
    content = count_content(store, digests, kind)
    facts = facts.changed(forgotten=record.facts if len(record) else None, content=content)
    store.delete(REPORT_FILE)
    write_facts(store, facts)
    store.write_bytes(CARD_FILE, card_text(facts).encode())
    store.write_json(CROISSANT_FILE, croissant(facts, digests, _columns(store, digests)))
    build_statistics(store, facts, drops)
    write_views(store, [line.path for line in digests])
    files = [*_FILES, *([FORGOTTEN_FILE] if len(record) else [])]
    lines = [digest_file(store, UIDS_FILE, facts.kept), *(digest_file(store, path) for path in files)]
    write_manifest(store, [*digests, *lines])
    store.write_bytes(SUCCESS_FILE, b"")


def _columns(store: RunStore, digests: list[Published]) -> pa.Schema | None:
    """Return the schema of the Parquet files in shards/; None where there are none."""
    paths = [line.path for line in digests if line.path.startswith("shards/") and line.path.endswith(".parquet")]
    if not paths:
        return None
    with store.open(min(paths)) as file:
        return pq.read_schema(file)
