"""Checks the integrity of a published run by its files alone: digests, sums, shards against decisions, uids.npy, sizes.json."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from curate.errors import RunError
from curate.forget.absence import check_absence
from curate.ids import uid_halves
from curate.output.output_format import find_output, find_written
from curate.publish.uids import PAIR
from curate.run.columns import table_names
from curate.run.opened import open_context
from curate.schema import KEPT
from curate.store.facts import read_facts
from curate.store.layout import (
    ENTRIES_FILE,
    FAILURES_FILE,
    MANIFEST_FILE,
    RUN_FILE,
    SIZES_FILE,
    STATISTICS_FILE,
    SUCCESS_FILE,
    UIDS_FILE,
    table_file,
)
from curate.store.manifest import Published, find_faults, how_to_go_on, no_run, read_manifest
from curate.store.store import RunStore


def verify_run(url: str) -> tuple[list[str], list[str]]:
    """Check a run.

    Returns:
        What was checked, and what differs: nothing, if the run is intact.

    Raises:
        RecipeError: there is no run.
        RunError: the run is not finished.
    """
    folder = RunStore(url)
    if not folder.exists(RUN_FILE):
        raise no_run(folder, url)
    if not folder.exists(SUCCESS_FILE) or not folder.exists(MANIFEST_FILE):
        raise RunError(f"{url}: the run is not finished (no {SUCCESS_FILE}); {how_to_go_on(folder, url)}")
    lines = read_manifest(folder)
    faults = list(_check_files(folder, lines))
    checked = [f"{len(lines):,} files by sha256 ({sum(line.bytes for line in lines):,} bytes)"]
    if not faults:
        faults += _check_complete(folder, {line.path for line in lines})
    if not faults:
        counts, more = _check_rows(folder, lines)
        faults += more
        checked += counts
        counts, more = check_absence(folder)
        faults += more
        checked += counts
    return checked, faults


def _check_files(folder: RunStore, lines: list[Published]) -> Iterator[str]:
    yield from (f"{path}: {fault.text}" for path, fault in find_faults(folder, lines).items())
    known = {line.path for line in lines} | {MANIFEST_FILE, SUCCESS_FILE}
    for path in folder.files():
        if path not in known and not path.startswith("tmp/"):
            yield f"{path}: is not in the manifest"


def _check_complete(folder: RunStore, listed: set[str]) -> Iterator[str]:
    """Yield what every run has, and its manifest does not list."""
    for path in sorted({RUN_FILE, SIZES_FILE, ENTRIES_FILE, FAILURES_FILE, UIDS_FILE, STATISTICS_FILE} - listed):
        yield f"{path}: is not in the manifest, and every run has it"
    if not {RUN_FILE, SIZES_FILE} <= listed:
        return
    context, units = open_context(folder)
    names = table_names(context)
    needed = [table_file(name, unit.index) for unit in units for name in names]
    kind = find_output(context.pool.images)
    for name in folder.read_json(SIZES_FILE):
        needed += kind.files(f"shards/{name.partition('.')[0]}")
    for path in needed:
        if path not in listed:
            yield f"{path}: is not in the manifest, and this run has it"


def _check_rows(folder: RunStore, lines: list[Published]) -> tuple[list[str], list[str]]:
    faults = []
    rows = failed = 0
    kept: list[np.ndarray] = []
    verdicts: Counter[str] = Counter()
    for line in lines:
        if not line.path.startswith("tables/decisions/"):
            continue
        table = folder.read_parquet(line.path, ["uid", "kept", "rule"])
        samples = folder.read_parquet(line.path.replace("/decisions/", "/samples/"), ["uid", "status"])
        rows += len(samples)
        failed += len(samples) - int(pc.sum(pc.equal(samples["status"], "ok")).as_py() or 0)
        if not samples["uid"].equals(table["uid"]):
            faults.append(f"{line.path}: is not aligned with samples")
        if pc.sum(pc.equal(table["kept"], pc.is_null(table["rule"]))).as_py() not in (len(table), None):
            faults.append(f"{line.path}: a row is neither kept nor dropped by a rule, or both")
        kept.append(_pairs(table["uid"].filter(table["kept"])))
        rules = pc.if_else(table["kept"], KEPT, table["rule"]).combine_chunks()
        verdicts.update({item["values"]: item["counts"] for item in pc.value_counts(rules).to_pylist()})
    counts = read_facts(folder).counts
    if sum(counts.values()) != rows or counts.get("failed", 0) != failed:
        faults.append(f"{RUN_FILE}: counts {counts} do not add up to {rows} samples, {failed} of them failed")
    faults += [
        f"{RUN_FILE}: says {counts.get(name, 0):,} rows {name}, tables/decisions {verdicts[name]:,}"
        for name in {**counts, **verdicts}
        if counts.get(name, 0) != verdicts[name]
    ]
    all_kept = np.sort(np.concatenate([np.zeros(0, PAIR), *kept]), order=("f0", "f1"))
    if len(np.unique(all_kept)) != len(all_kept):
        faults.append("tables/decisions: a uid is kept twice")
    with folder.open(UIDS_FILE) as file:
        if not np.array_equal(np.load(file, allow_pickle=False), all_kept):
            faults.append("uids.npy: differs from the kept uids of tables/decisions")
    faults += _check_shards(folder, lines, all_kept)
    summary = f"{rows:,} samples = {counts.get('kept', 0):,} kept + {rows - failed - counts.get('kept', 0):,} dropped + {failed:,} failed"
    return [summary, f"{len(all_kept):,} kept uids in shards and uids.npy"], faults


def _check_shards(folder: RunStore, lines: list[Published], kept: np.ndarray) -> Iterator[str]:
    sizes = folder.read_json(SIZES_FILE)
    kind = find_written(f"shards/{name}" for name in sizes)
    found = []
    for name, rows in sizes.items():
        stem = f"shards/{name.partition('.')[0]}"
        listed = folder.read_parquet(f"{stem}.parquet", ["uid", *(["key"] if kind.has_members else [])])
        found.append(_pairs(listed["uid"]))
        if len(listed) != rows:
            yield f"shards/sizes.json: {name} has {rows} rows, its Parquet {len(listed)}"
        names = kind.names(folder, stem)
        if names is not None and names != set(listed["key"].to_pylist()):
            yield f"shards/{name}: its samples are not those of {stem}.parquet"
    everything = np.sort(np.concatenate([np.zeros(0, PAIR), *found]), order=("f0", "f1"))
    if not np.array_equal(everything, kept):
        yield "shards: hold other uids than tables/decisions keeps"


def _pairs(uids: object) -> np.ndarray:
    high, low = uid_halves(uids)
    pairs = np.empty(len(high), PAIR)
    pairs["f0"], pairs["f1"] = high, low
    return pairs
