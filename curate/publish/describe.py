"""What describes a run besides its tables and shards, made from the run's facts; then the manifest and `_SUCCESS`.

In: a run folder with its tables, shards and all other files, and what run.json is to hold. Publishing ends here, and so
does what changes a published run.
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate import ids
from curate.output.output_format import OutputFormat, find_output
from curate.publish.audit import Drops
from curate.publish.card import card_text
from curate.publish.croissant import croissant
from curate.publish.statistics import build_statistics
from curate.publish.views import write_views
from curate.store import layout
from curate.store.facts import ContentFacts, RunFacts, write_facts
from curate.store.forgotten import Record
from curate.store.manifest import Published, digest_file, write_manifest
from curate.store.store import RunStore

_MEASURES = ("words", "width", "height")
_LANGUAGES = 500  # more are noise, or a stranger's column
_READERS = 8  # files read at once: what hides the latency of an object store

_FILES = (
    layout.FAILURES_FILE,
    layout.ENTRIES_FILE,
    layout.SIZES_FILE,
    layout.RUN_FILE,
    layout.CARD_FILE,
    layout.CROISSANT_FILE,
    layout.STATISTICS_FILE,
    layout.VIEWS_FILE,
)


def describe_run(store: RunStore, facts: RunFacts, digests: list[Published], drops: Drops) -> None:
    """Write run.json, the card, croissant.json, stats.duckdb and views.sql, then the manifest, then `_SUCCESS`.

    An existing report describes the run as it was: it is removed, and `curate report` writes another.

    Args:
        store: the run folder.
        facts: what run.json will hold, but for `content` and `forgotten`, which are found here.
        digests: the manifest's lines of all tables and shards.
        drops: rows by source and rule.
    """
    record, kind = Record.read(store), find_output(facts.pool.images)
    content = _count_content(store, digests, kind)
    facts = facts.changed(forgotten=record.facts if len(record) else None, content=content)
    store.delete(layout.REPORT_FILE)
    write_facts(store, facts)
    store.write_bytes(layout.CARD_FILE, card_text(facts).encode())
    store.write_json(layout.CROISSANT_FILE, croissant(facts, digests, _columns(store, digests)))
    build_statistics(store, facts, drops)
    write_views(store, [line.path for line in digests])
    files = [*_FILES, *([layout.FORGOTTEN_FILE] if len(record) else [])]
    lines = [digest_file(store, layout.UIDS_FILE, facts.kept), *(digest_file(store, path) for path in files)]
    write_manifest(store, [*digests, *lines])
    store.delete("parts")  # from here on the manifest says what was written
    store.write_bytes(layout.SUCCESS_FILE, b"")


def _columns(store: RunStore, digests: list[Published]) -> pa.Schema | None:
    """Return the schema of the Parquet files in shards/; None where there are none."""
    paths = [line.path for line in digests if line.path.startswith("shards/") and line.path.endswith(".parquet")]
    return store.schema(min(paths)) if paths else None


def _count_content(folder: RunStore, digests: Iterable[Published], kind: OutputFormat) -> ContentFacts:
    """Count the kept samples of a run, by the manifest's lines of its tables and shards."""
    lines = {line.path: line for line in digests}
    units = [path.rpartition("/")[2] for path in sorted(lines) if path.startswith("tables/decisions/")]

    def count(unit: str) -> list[Counter[Any]]:
        return _count_unit(folder, unit, kind, f"tables/members/{unit}" in lines)

    totals: list[Counter[Any]] = [Counter() for _ in range(4)]
    with ThreadPoolExecutor(_READERS) as pool:
        for counts in pool.map(count, units):
            for total, found in zip(totals, counts, strict=True):
                total.update(found)
    languages, files, sums, known = totals
    shards = [line for path, line in lines.items() if path.startswith("shards/") and path.endswith(f".{kind.suffix}")]
    ordered = sorted(languages.items(), key=lambda item: (-item[1], str(item[0])))
    return ContentFacts(
        languages={str(code): rows for code, rows in ordered[:_LANGUAGES]},
        files=dict(sorted(files.items(), key=lambda item: (-item[1], item[0]))),
        shards=len(shards),
        bytes=sum(line.bytes for line in shards),
        digest=ids.digest(sorted((line.path, line.sha256) for line in shards)),
        means={name: round(sums[name] / known[name], 2) for name in _MEASURES if known[name]},
    )


def _count_unit(folder: RunStore, unit: str, kind: OutputFormat, members: bool) -> list[Counter[Any]]:
    """Return a unit's kept samples by language, their files by suffix, the sum of each measure and how many have it."""
    kept = folder.read_parquet(f"tables/decisions/{unit}", ["kept"])["kept"]
    samples = folder.read_parquet(f"tables/samples/{unit}", ["language", "format", *_MEASURES]).filter(kept)
    sums = Counter({name: pc.sum(samples[name]).as_py() or 0 for name in _MEASURES})
    known = Counter({name: len(samples) - samples[name].null_count for name in _MEASURES})
    files: Counter[Any] = Counter()
    if kind.has_members:
        if members:
            files = _values(
                pc.list_flatten(folder.read_parquet(f"tables/members/{unit}", ["suffix"]).filter(kept)["suffix"])
            )
        else:
            files = _values(pc.if_else(pc.equal(samples["format"], "jpeg"), "jpg", samples["format"]))
        files |= Counter({"txt": len(samples), "json": len(samples)})  # which every sample has in the tars
    return [_values(samples["language"]), files, sums, known]


def _values(column: pa.ChunkedArray) -> Counter[Any]:
    """Return how often each value occurs."""
    counts = pc.value_counts(column.drop_null().combine_chunks()).to_pylist()
    return Counter({item["values"]: item["counts"] for item in counts})
