"""Writes the files that describe a run, from its facts; then the manifest; and last `_SUCCESS`.

In: a run folder with all other files, and the content of run.json. Publishing a run, and every change of a run, ends
here.
"""

import datetime
import errno
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import resources
from typing import Any

import pyarrow as pa

from curate.base import ids, schema
from curate.base.errors import DamagedError, RunError
from curate.base.process import in_threads
from curate.emit.output_format import OutputFormat, find_written
from curate.publish.audit import MEASURES, Audit, Drops, nest_counts
from curate.publish.card import card_text, template
from curate.publish.stats_duckdb import write_stats
from curate.publish.uids import UidsPart, write_uids
from curate.publish.views import write_views
from curate.store import layout
from curate.store.facts import ContentFacts, RunFacts, read_facts, write_facts
from curate.store.forgotten import Record
from curate.store.manifest import Lines, Published, read_manifest, write_manifest
from curate.store.store import RunStore
from curate.store.validity import recorded_line

_FEW = 10  # number of files in the manifest to check if the folder is not listed
_MAX_VALUES = 500  # languages, or licenses in a column; more are noise, or other content
_LISTED = 200  # maximum number of files that are listed one by one

_PLAIN = re.compile(r"[A-Za-z_][\w-]*")  # column names that may be part of an @id
_DATA_TYPES = (
    (pa.types.is_string, "sc:Text"),
    (pa.types.is_large_string, "sc:Text"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
    (pa.types.is_boolean, "sc:Boolean"),
)


def describe_run(
    store: RunStore,
    facts: RunFacts,
    digests: Lines,
    audit: Audit,
    uids: list[UidsPart],
    entries: pa.Table | None = None,
) -> None:
    """Write entries.parquet, uids.npy, run.json, the card, croissant.json, stats.duckdb, views.sql, then the manifest.

    `facts` are the content of run.json, except `forgotten` and most of `content`, which are computed here. `digests`
    are the lines of all tables and shards in the manifest. `uids` come from `sort_uids`. `entries` come from
    `count_entries`; None: they have not changed. A report is removed, because it describes the old run; `curate report`
    writes a new one.
    """
    record, kind = Record.read(store), find_written(facts)
    shards = digests.below("shards/")
    facts = facts.changed(forgotten=record.facts if len(record) else None, content=_content(facts, shards, kind, audit))
    _write_facts(store, facts, shards)
    statistics = partial(write_stats, store, facts, audit.drops, entries)
    writes: list[Callable[[], object]] = [statistics, partial(write_uids, store, uids)]  # slow writes
    writes += [] if entries is None else [partial(store.write_parquet, layout.ENTRIES_FILE, entries)]
    for _ in in_threads(lambda write: write(), writes):
        pass
    rows = sum(part.uids for part in uids)
    files = [*layout.PUBLISHED_FILES, *([layout.FORGOTTEN_FILE] if len(record) else [])]
    files += [layout.RETRIES_FILE] if facts.retries else []
    write_views(store, [*digests.paths, *files], kind)
    digests.add(recorded_line(store, path, rows if path == layout.UIDS_FILE else None) for path in files)
    write_manifest(store, digests)


def update_description(store: RunStore, facts: RunFacts, drops: Drops) -> None:
    """Rewrite the files that have a finished run's name and license, and the manifest. A report is removed."""
    lines = read_manifest(store)
    # If this is killed, the run is unfinished, and `finish_description` completes it.
    store.write_json(layout.DESCRIBING_FILE, [[source, rule, rows] for (source, rule), rows in drops.items()])
    store.delete_file(layout.SUCCESS_FILE)
    _write_facts(store, facts, Lines(lines).below("shards/"))
    write_stats(store, facts, drops)
    rewritten = (layout.RUN_FILE, layout.CARD_FILE, layout.CROISSANT_FILE, layout.STATISTICS_FILE)
    digests = Lines(line for line in lines if line.path not in (*rewritten, layout.REPORT_FILE))
    digests.add(recorded_line(store, path) for path in rewritten)
    write_manifest(store, digests)
    mark_published(store)
    store.delete_file(layout.DESCRIBING_FILE)


def finish_description(store: RunStore) -> None:
    """Complete an interrupted `update_description` from run.json. The caller must hold the lock."""
    is_other = any(map(store.exists, (layout.SUCCESS_FILE, layout.FORGETTING_FILE)))
    if is_other or not store.exists(layout.DESCRIBING_FILE):
        return
    # If a file is damaged or missing, the run stays unfinished. Running its recipe recomputes the file.
    with suppress(DamagedError, OSError):
        drops = Counter({(source, rule): rows for source, rule, rows in store.read_json(layout.DESCRIBING_FILE)})
        update_description(store, read_facts(store), drops)


def mark_published(store: RunStore, merged: Collection[str] = (), is_new: bool = False) -> None:
    """Write `_SUCCESS`. Before that, remove files in `tables/` and `shards/` that are merged or not part of the run.

    `merged` are files whose content is now in chunks. `is_new` means that there are no other files, because the run
    started in an empty folder. Then the folder is not listed, because a store lists only 1,000 names per request.
    Raises RunError if files in the manifest are missing, for example because somebody deletes the folder. Without a
    listing, only a few files are checked.
    """
    lines = read_manifest(store) if store.exists(layout.MANIFEST_FILE) else []
    listed = {layout.MANIFEST_FILE, *(line.path for line in lines)}
    if are_there := all(map(store.exists, sorted(listed)[:: len(listed) // _FEW + 1])):
        store.delete_files(merged)  # first, so that there is less to list
    present = listed if are_there and is_new else {*store.files()}
    missing = sorted(listed - present)
    if missing:
        for folder in filter(store.exists, missing):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), store.path(folder))
        problem = f"{len(missing):,} files of the run are missing, such as {missing[0]}"
        raise RunError(f"{store.url}: {problem}: something else changed the folder; run again to restore them")
    store.delete_files([path for path in present - listed if path.startswith(("tables/", "shards/"))])
    store.delete("parts")
    store.write_bytes(layout.SUCCESS_FILE, b"")


def _write_facts(store: RunStore, facts: RunFacts, shards: Sequence[Published]) -> None:
    store.delete_file(layout.REPORT_FILE)
    write_facts(store, facts)
    store.write_bytes(layout.CARD_FILE, card_text(facts).encode())
    samples = [line.path for line in shards if line.path.endswith(".parquet")]
    columns = store.schema(min(samples)) if samples else None
    store.write_json(layout.CROISSANT_FILE, croissant(facts, shards, columns))


def _content(facts: RunFacts, shards: Sequence[Published], kind: OutputFormat, audit: Audit) -> ContentFacts:
    shards = [line for line in shards if line.path.endswith(f".{kind.suffix}")]
    licences = nest_counts(audit.licences)
    return ContentFacts(
        languages=_most_frequent(audit.languages),
        licences={name: _most_frequent(licences[name]) for name in schema.LICENCES if name in licences} or None,
        files=dict(sorted(audit.suffixes.items(), key=lambda item: (-item[1], item[0]))),
        shards=len(shards),
        bytes=sum(line.bytes for line in shards),
        digest=ids.digest(sorted((line.path, line.sha256) for line in shards)),
        json_dtype=facts.content.json_dtype,
        means={name: round(audit.sums[name] / audit.measured[name], 2) for name in MEASURES if audit.measured[name]},
    )


def _most_frequent(counts: Counter[str]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    return {str(name): rows for name, rows in ordered[:_MAX_VALUES]}


def croissant(run: RunFacts, digests: Iterable[Published], columns: pa.Schema | None) -> Any:
    """Return a Croissant 1.0 (MLCommons) description of a run, from its manifest.

    `columns`: of Parquet shards, or None. `mlcroissant` validates it, and iterates over the shards' Parquet files
    (record set `samples`). The publisher must add who publishes the dataset, and where. `datePublished`, which is
    required, is the day on which the run finished.
    """
    kind = find_written(run)
    file_sets = {kind.suffix: (*kind.file_set, kind.media_type)}
    file_sets.setdefault("parquet", ("parquet", "one row per sample, one file per shard", "application/x-parquet"))
    lines = [line for line in digests if line.path.startswith("shards/") and line.path.rpartition(".")[2] in file_sets]
    shards = sorted(lines, key=lambda line: line.path)
    text = template("croissant.json").render(
        context=resources.files("curate.publish").joinpath("croissant_context.json").read_text("utf-8"),
        run=run,
        kind=kind,
        file_sets=file_sets,
        shards=shards,
        listed=shards if len(shards) <= _LISTED else [],
        fields=None if columns is None else list(_fields(columns)),
        day=datetime.datetime.fromtimestamp(run.finished, datetime.UTC).date().isoformat(),
    )
    return json.loads(text)


def _fields(columns: pa.Schema) -> Iterator[tuple[str | int, str, str, bool]]:
    """Yield the id, name and Croissant type of each column that has one, and whether its values are lists."""
    for index, field in enumerate(columns):
        kind, is_list = field.type, pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        data_type = next((name for is_one, name in _DATA_TYPES if is_one(kind)), None)
        if data_type and field.name:
            yield field.name if _PLAIN.fullmatch(field.name) else index, field.name, data_type, is_list
