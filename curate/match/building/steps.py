"""The steps of a build, over the parts of its files: count, add up, choose.

parts ─ count ─ totals ─ send by word ─ merge ─ floors ─ candidates ─ choose the entries of each language

`merge` has a bucket's words and titles, and pairs whose first word is in it: it adds them up, and sends the pairs that
are left to the bucket of their second word. `find_floors` knows from all buckets' counts from which count on words and
titles may come in. `choose_candidates` sends on those, and the pairs of its second words.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.numeric.arrays import I64, whole
from curate.base.schema import METADATA
from curate.match.building.counts import (
    SENT_PAIRS,
    WHOLE,
    Counted,
    Totals,
    count_part,
    from_bytes,
    send,
    split_table,
    to_bytes,
)
from curate.match.building.entries import NUMBERS, KeyReport, choose_entries, clean, entries_file, joined
from curate.match.building.ngrams import WORDS
from curate.match.building.wikis import BuildSettings
from curate.match.metadata import never_match
from curate.run.units import SideOutput, Total, Units
from curate.store.store import RunStore

REPORT_FILE, _TABLE = "report.json", "metadata.parquet"
Key = tuple[str, int]  # a wiki, and a bucket of its words
Value = tuple[str, int, bytes]  # what it is of, an order or a number, and a table as bytes


class Tally(NamedTuple):
    """How many words or titles of a bucket have each count."""

    wiki: str
    kind: str  # words, titles
    counts: I64  # ascending
    numbers: I64
    odd: int  # of them all, such as come in otherwise than they are written, or not


class Floor(NamedTuple):
    """Of a wiki's words or titles: how many there are, and the least count of those that may come in."""

    total: int
    least: int


Floors = Mapping[tuple[str, str], Floor]  # by wiki and kind


def merge(key: Key, values: Sequence[Value], settings: BuildSettings, totals: Totals) -> Iterator[Any]:
    """Yield a bucket's words and titles, its pairs by the buckets of second words, and tallies, as `SideOutput`."""
    wiki, bucket = key
    if bucket == WHOLE:
        yield from ((key, value) for value in values)
        return
    words = WORDS.empty_table()
    for kind in ("words", "titles"):
        if parts := [from_bytes(data) for name, _, data in values if name == kind]:
            table = _sum(pa.concat_tables(parts), WORDS)
            words = table if kind == "words" else words
            yield key, (kind, 0, to_bytes(table))
            yield SideOutput(_tally(kind, table, wiki, settings))
    if parts := [from_bytes(data) for kind, _, data in values if kind == "pairs"]:
        rare = words.filter(pc.less_equal(words["count"], pa.scalar(totals.rarest(wiki, settings.limits.pmi))))
        pairs = _with_count(_sum(pa.concat_tables(parts), SENT_PAIRS), "first", rare)
        for other, rows in split_table(pairs, "second", totals.buckets(wiki)):
            yield (wiki, other), ("pairs", 0, to_bytes(rows))


def _tally(kind: str, table: pa.Table, wiki: str, settings: BuildSettings) -> Tally:
    words = whole(table["word"])
    is_plain: Any = pc.equal(clean(words, wiki, settings), words).fill_null(False)
    odd = len(words) - is_plain.true_count
    counts, numbers = np.unique(table["count"].to_numpy(), return_counts=True)
    return Tally(wiki, kind, counts, numbers, odd)


def find_floors(tallies: Sequence[Tally], settings: BuildSettings, totals: Totals) -> Floors:
    """Return the floor of each wiki's words and titles: above it are as many as may come in, and as may be there."""
    floors = {}
    for wiki, kind in sorted({(tally.wiki, tally.kind) for tally in tallies}):
        parts = [tally for tally in tallies if (tally.wiki, tally.kind) == (wiki, kind)]
        counts, index = np.unique(np.concatenate([tally.counts for tally in parts]), return_inverse=True)
        numbers = np.bincount(index, np.concatenate([tally.numbers for tally in parts])).astype(np.int64)
        total = int(numbers.sum())
        if (cap := settings.cap(kind, total, wiki)) is None:
            floors[wiki, kind] = Floor(total, settings.limits.count if kind == "words" else settings.limits.views)
            continue
        before = len(NUMBERS) + totals.names.get(wiki, 0) + sum(tally.odd for tally in parts)
        if kind == "titles":
            before += settings.limits.words + settings.limits.pairs
        above = np.cumsum(numbers[::-1])[::-1]  # how many have this count or more
        enough = np.flatnonzero(above >= cap + before)
        floors[wiki, kind] = Floor(total, int(counts[enough[-1]]) if len(enough) else 1)
    return floors


def choose_candidates(
    key: Key, values: Sequence[Value], settings: BuildSettings, totals: Totals, floors: Floors
) -> Iterator[tuple[str, tuple[str, Value]]]:
    """Yield, by the key of entries, what of a bucket may come in."""
    wiki, bucket = key
    to = settings.keys[wiki]
    if bucket == WHOLE:
        yield from ((to, (wiki, value)) for value in values)
        return
    tables = {kind: [from_bytes(data) for name, _, data in values if name == kind] for kind in ("words", "titles")}
    for kind, of_kind in tables.items():
        for table in of_kind:
            often = table.filter(pc.greater_equal(table["count"], pa.scalar(floors[wiki, kind].least)))
            yield to, (wiki, (kind, 0, to_bytes(_cleaned(often, wiki, settings))))
    parts = [from_bytes(data) for name, _, data in values if name == "pairs"]
    if parts and tables["words"]:
        pairs = _find_pairs(pa.concat_tables(parts), tables["words"][0], wiki, settings, totals)
        yield to, (wiki, ("pairs in all", len(pairs), b""))
        yield to, (wiki, ("pairs", 0, to_bytes(_first(_cleaned(pairs, wiki, settings), wiki, settings, totals))))


def _find_pairs(pairs: pa.Table, words: pa.Table, wiki: str, settings: BuildSettings, totals: Totals) -> pa.Table:
    pairs = _with_count(pairs, "second", words)
    n, n_first, n_second = (pairs[name].to_numpy() for name in ("count", "count of first", "count of second"))
    ratio = n * float(totals.tokens[wiki]) / (n_first * n_second.astype(np.float64))
    least = 2.0**settings.limits.pmi
    enough = ratio >= least if settings.is_first(wiki) else ratio > least
    pairs = pairs.filter(pa.array(enough))
    entries = joined(whole(pairs["first"]), whole(pairs["second"]), wiki)
    return pa.table({"word": entries, "count": whole(pairs["count"]), "pmi": pa.array(np.log2(ratio[enough]))})


def _sum(table: pa.Table, schema: pa.Schema) -> pa.Table:
    keys = schema.names[:-1]
    return table.group_by(keys, use_threads=False).aggregate([("count", "sum")]).rename_columns(schema.names)


def _with_count(pairs: pa.Table, side: str, words: pa.Table) -> pa.Table:
    index = pc.index_in(whole(pairs[side]), value_set=whole(words["word"]))
    pairs = pairs.append_column(f"count of {side}", words["count"].take(index))
    return pairs.filter(index.is_valid())


def _cleaned(table: pa.Table, wiki: str, settings: BuildSettings) -> pa.Table:
    words = clean(whole(table["word"]), wiki, settings)
    return table.set_column(0, "word", words).filter(words.is_valid())


def _first(pairs: pa.Table, wiki: str, settings: BuildSettings, totals: Totals) -> pa.Table:
    """Return the first of the pairs: as many different ones as may come in, and as many as may be there before."""
    most = len(NUMBERS) + totals.names.get(wiki, 0) + settings.limits.words + settings.limits.pairs
    if len(pairs) <= most or settings.is_first(wiki):
        return pairs
    pairs = pairs.sort_by([("pmi", "descending"), ("count", "descending"), ("word", "ascending")])
    pairs = pairs.append_column("row", pa.array(np.arange(len(pairs))))
    rows = pairs.group_by("word", use_threads=False).aggregate([("row", "min")])["row_min"].to_numpy()
    return pairs.drop_columns("row").take(np.sort(rows)[:most])


def build_metadata(units: Units, settings: BuildSettings) -> None:
    """Build the entries of each key, a file each in the folder, and REPORT_FILE, which is written last."""
    units.then("Count", count_part, settings)
    totals = units.ask("Totals", _totals, combine=Total(Totals))
    pairs = units.pairs("Send", send, settings, totals)
    merged = units.group("Merge", pairs, merge, settings, totals)
    floors = units.get("Floors", find_floors, merged.side_output, settings, totals)
    candidates = units.group("Candidates", merged, choose_candidates, settings, totals, floors)
    chosen = units.group("Choose", candidates, _choose, settings, floors)
    units.get("Report", write_report, chosen.side_output, totals, settings)


def _totals(_tables: object, state: Counted) -> list[Totals]:
    return [state.totals]


def _choose(key: str, values: Any, settings: BuildSettings, floors: Floors) -> Any:
    numbers = {wiki_kind: floor.total for wiki_kind, floor in floors.items()}
    yield from map(SideOutput, choose_entries(key, values, settings, numbers))


def write_report(reports: list[KeyReport], totals: Totals | None, settings: BuildSettings) -> None:
    """Write what became of each language, and what the parts held."""
    languages = [asdict(report) for report in sorted(reports, key=lambda report: report.language)]
    read = {name: dict(sorted(numbers.items())) for name, numbers in vars(totals or Totals()).items()}
    settings.store.write_json(
        REPORT_FILE, {"mode": settings.mode.value, "pmi": settings.limits.pmi, "read": read, "languages": languages}
    )


def gather_entries(settings: BuildSettings, out: str, english: pa.Table | None = None) -> dict[str, Any]:
    """Put the entries of all keys into place as one table, `out`, and the report beside it; return the report.

    Keys are in order, and each has a row group. In memory are the entries of one. `english` is a list that was made
    before, with the columns of METADATA: MetaCLIP's, say.
    """
    report: dict[str, Any] = settings.store.read_json(REPORT_FILE)
    store, n = settings.store, 0
    if english is not None:
        table = english.set_column(3, METADATA.field("language"), pa.repeat(pa.scalar("en"), len(english)))
        store.write_parquet(entries_file("en"), table)
        never = table["entry"].filter(never_match(whole(table["entry"]), settings.mode.value))
        listed = KeyReport("en", len(table), [], len(never), list(map(str, never[:5].to_pylist())))
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
    """Return the file of the report of a table."""
    return f"{out.removesuffix('.parquet')}.report.json"
