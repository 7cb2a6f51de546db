"""The steps of a build, over the parts of its files: count, add up, choose.

parts ─ count ─ totals ─ files of counts by language ─ choose the entries of each language
"""

from collections.abc import Iterator
from dataclasses import asdict
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.schema import METADATA
from curate.match.building.counts import Counted, CountFile, Totals, count_part
from curate.match.building.entries import KeyReport, choose_entries, describe_key, entries_file
from curate.match.building.wikis import BuildSettings
from curate.run.units import Total, Units
from curate.store.store import RunStore

REPORT_FILE, _TABLE = "report.json", "metadata.parquet"


def build_metadata(units: Units, settings: BuildSettings) -> None:
    """Build the entries of each key, one file each in the folder, and finally REPORT_FILE."""
    units.then("Count", count_part, settings)
    totals = units.ask("Totals", lambda _, counted: [counted.totals], combine=Total(Totals))
    files = units.pairs("Files", _files_of, settings)
    chosen = units.group("Choose", files, choose_entries, settings, totals)
    units.get("Report", write_report, chosen.side_output, totals, settings)


def _files_of(_tables: object, state: Counted, settings: BuildSettings) -> Iterator[tuple[str, CountFile]]:
    if wiki := state.unit.wiki:
        yield settings.keys[wiki], CountFile(wiki, "", "")  # it gets entries even without words
    for file in state.files:
        yield settings.keys[file.wiki], file


def write_report(reports: list[KeyReport], totals: Totals | None, settings: BuildSettings) -> None:
    """Write the result for each language, and the totals of the parts."""
    languages = [asdict(report) for report in sorted(reports, key=lambda report: report.language)]
    read = {name: dict(sorted(numbers.items())) for name, numbers in vars(totals or Totals()).items()}
    report = {"mode": settings.mode.value, "pmi": settings.limits.pmi, "read": read, "languages": languages}
    settings.store.write_json(REPORT_FILE, report)


def gather_entries(settings: BuildSettings, out: str, english: pa.Table | None = None) -> dict[str, Any]:
    """Write the entries of all keys as one table, `out`, with the report next to it; return the report.

    Keys are in order, each in its own row group; only one key is in memory at a time. `english` is an existing list
    with the columns of METADATA, for example MetaCLIP's.
    """
    report: dict[str, Any] = settings.store.read_json(REPORT_FILE)
    store, n = settings.store, 0
    if english is not None:
        table = english.set_column(3, METADATA.field("language"), pa.repeat(pa.scalar("en"), len(english)))
        store.write_parquet(entries_file("en"), table)
        listed = describe_key("en", table, [], settings)
        report["languages"] = sorted([*report["languages"], asdict(listed)], key=itemgetter("language"))
        store.write_json(REPORT_FILE, report)
    with store.create(_TABLE) as file, pq.ParquetWriter(file, METADATA, compression="zstd") as writer:
        for language in report["languages"]:
            table = store.read_parquet(entries_file(language["language"]))
            ids = pa.array(np.arange(n, n + len(table), dtype=np.int32))
            writer.write_table(table.set_column(0, METADATA.field("entry_id"), ids), row_group_size=max(1, len(table)))
            n += len(table)
    folder, _, name = out.rpartition("/")
    target = RunStore(folder or "/")
    for source, file_name in ((REPORT_FILE, report_name(name)), (_TABLE, name)):
        store.fs.mv(store.path(source), target.path(file_name))
    return report


def report_name(out: str) -> str:
    """Return the path of a table's report."""
    return f"{out.removesuffix('.parquet')}.report.json"
