"""The summary at the end of `curate run`: the funnel, warnings, and commands for further questions."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.schema import MISSING_REASONS, SAMPLE_REASONS
from curate.base.stages import FAILED
from curate.decide.dedup.exact import LARGE_SHARE
from curate.pool.registry import find_downloading
from curate.run.context import open_context
from curate.store.facts import DownloadFacts, read_facts
from curate.store.layout import FAILURES_FILE, SIZES_FILE, UIDS_FILE, table_file
from curate.store.manifest import read_manifest
from curate.store.store import RunStore

_MISSING = pa.array(MISSING_REASONS)
_TABLES = 8  # number of first and last tables in which to look for a sample to explain
_TRAINING = 10_000  # a useful training set has at least this many samples
# Fewer shards may not be enough for a training loader
_CONSTANTS = {"meanings": SAMPLE_REASONS, "large_share": LARGE_SHARE, "few_shards": 8}


def summary(out: str, seconds: float) -> str:
    """Return the text of the summary."""
    from curate.ask.text_pages import render_page  # imported here, because a run needs these libraries only at its end

    store = RunStore(out)
    run = read_facts(store)
    uids = None
    if run.repeats or not run.pool.images:
        uids = next(line.rows or 0 for line in read_manifest(store) if line.path == UIDS_FILE)
    failures, missing = _count_failures(store, run.downloads)
    page = render_page(
        "summary",
        out=out,
        run=run,
        seconds=seconds,
        shards=len(store.read_json(SIZES_FILE)),
        uids=uids,
        failures=dict(failures.most_common()),
        missing=missing,
        example=_find_example(store),
        training=_TRAINING,
        **_CONSTANTS,
    )
    return str(page).removesuffix("\n")


def _count_failures(store: RunStore, downloads: DownloadFacts | None) -> tuple[Counter[str], dict[str, int] | None]:
    """Return the failures by reason, and facts about missing downloads (None if none are missing)."""
    counts, missing, may_pass = Counter[str](), 0, 0
    with store.open_parquet(FAILURES_FILE) as file:
        for table in file.read_groups(["reason", "attempts", "may_pass"]):  # there may be as many failures as rows
            reasons: Any = pc.value_counts(table["reason"])
            counts.update({row["values"]: row["counts"] for row in reasons.to_pylist()})
            never_came = table.filter(pc.and_(table["attempts"].is_valid(), pc.is_in(table["reason"], _MISSING)))
            missing += len(never_came)
            may_pass += pc.sum(never_came["may_pass"]).as_py() or 0
    return counts, _missing_urls(store, downloads, missing, may_pass) if missing else None


def _missing_urls(store: RunStore, facts: DownloadFacts | None, missing: int, may_pass: int) -> dict[str, int]:
    """Return how many rows of how many URLs lack an image, and how many of them are broken or may succeed later."""
    context, units = open_context(store)
    downloading = {source.name for source in context.recipe.input if find_downloading(source)}
    rows = {line.path: line.rows or 0 for line in read_manifest(store)}
    urls = sum(rows[table_file("samples", unit.index, unit.last)] for unit in units if unit.source in downloading)
    broken = missing - (facts.urls - facts.came) if facts and facts.urls == urls else 0  # else other runs downloaded
    return {"rows": missing, "urls": urls, "broken": broken, "may_pass": may_pass}


def _find_example(store: RunStore) -> str:
    """Return the uid of a dropped sample from a few tables. The last tables have the rows that were retried."""
    names = store.files("tables/decisions")
    for name in dict.fromkeys([*names[:_TABLES], *names[-_TABLES:]]):
        rows = store.read_parquet(name, ["uid", "rule"])
        dropped = rows.filter(pc.and_(pc.is_valid(rows["uid"]), pc.not_equal(rows["rule"], pa.scalar(FAILED))))
        if len(dropped):
            return str(dropped["uid"][0])
    return "UID"
