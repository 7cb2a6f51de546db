"""Adds up the counts of all parts by bucket, and finds the pairs of words of enough mutual information.

`merge` has a bucket's words and titles, and pairs whose first word is in it: it adds them up, and sends the pairs that
are left to the bucket of their second word, with the count of the first. All buckets tell how many words and titles
have each count, so that `find_floors` knows from which count on they may come in. `choose_candidates` has a bucket's
words and titles again, of which it sends on those, and the pairs of its second words.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import I64, whole
from curate.match.building.counts import SENT_PAIRS, WHOLE, Totals, from_bytes, split_table, to_bytes
from curate.match.building.entries import NUMBERS, clean, joined
from curate.match.building.ngrams import WORDS
from curate.match.building.settings import BuildSettings
from curate.run.units import Aside

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
    """Yield a bucket's words and titles, its pairs by the buckets of second words, and tallies, as `Aside`."""
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
            yield Aside(_tally(kind, table, wiki, settings))
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
        some = [tally for tally in tallies if (tally.wiki, tally.kind) == (wiki, kind)]
        counts, places = np.unique(np.concatenate([tally.counts for tally in some]), return_inverse=True)
        numbers = np.bincount(places, np.concatenate([tally.numbers for tally in some])).astype(np.int64)
        total = int(numbers.sum())
        if (cap := settings.cap(kind, total, wiki)) is None:
            floors[wiki, kind] = Floor(total, settings.limits.count if kind == "words" else settings.limits.views)
            continue
        before = len(NUMBERS) + totals.names.get(wiki, 0) + sum(tally.odd for tally in some)
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
    for kind, some in tables.items():
        for table in some:
            often = table.filter(pc.greater_equal(table["count"], pa.scalar(floors[wiki, kind].least)))
            yield to, (wiki, (kind, 0, to_bytes(_cleaned(often, wiki, settings))))
    parts = [from_bytes(data) for name, _, data in values if name == "pairs"]
    if parts and tables["words"]:
        pairs = _find_pairs(pa.concat_tables(parts), tables["words"][0], wiki, settings, totals)
        yield to, (wiki, ("pairs in all", len(pairs), b""))
        yield to, (wiki, ("pairs", 0, to_bytes(_first(_cleaned(pairs, wiki, settings), wiki, settings, totals))))


def _find_pairs(pairs: pa.Table, words: pa.Table, wiki: str, settings: BuildSettings, totals: Totals) -> pa.Table:
    """Return the pairs of enough mutual information, as entries (word), with count and pmi."""
    pairs = _with_count(pairs, "second", words)
    n, n_first, n_second = (pairs[name].to_numpy() for name in ("count", "count of first", "count of second"))
    ratio = n * float(totals.tokens[wiki]) / (n_first * n_second.astype(np.float64))
    least = 2.0**settings.limits.pmi
    enough = ratio >= least if settings.is_first(wiki) else ratio > least
    pairs = pairs.filter(pa.array(enough))
    entries = joined(whole(pairs["first"]), whole(pairs["second"]), wiki)
    return pa.table({"word": entries, "count": whole(pairs["count"]), "pmi": pa.array(np.log2(ratio[enough]))})


def _sum(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows of different words, or pairs, with the sums of their counts."""
    keys = schema.names[:-1]
    return table.group_by(keys, use_threads=False).aggregate([("count", "sum")]).rename_columns(schema.names)


def _with_count(pairs: pa.Table, side: str, words: pa.Table) -> pa.Table:
    """Return the pairs whose word of a side is among the words, with its count."""
    places = pc.index_in(whole(pairs[side]), value_set=whole(words["word"]))
    pairs = pairs.append_column(f"count of {side}", words["count"].take(places))
    return pairs.filter(places.is_valid())


def _cleaned(table: pa.Table, wiki: str, settings: BuildSettings) -> pa.Table:
    """Return the rows whose word can be an entry, as it would be written."""
    words = clean(whole(table["word"]), wiki, settings)
    return table.set_column(0, "word", words).filter(words.is_valid())


def _first(pairs: pa.Table, wiki: str, settings: BuildSettings, totals: Totals) -> pa.Table:
    """Return the first of the pairs: as many different ones as may come in, and as many as may be there before."""
    most = len(NUMBERS) + totals.names.get(wiki, 0) + settings.limits.words + settings.limits.pairs
    if len(pairs) <= most or settings.is_first(wiki):
        return pairs
    pairs = pairs.sort_by([("pmi", "descending"), ("count", "descending"), ("word", "ascending")])
    pairs = pairs.append_column("place", pa.array(np.arange(len(pairs))))
    places = pairs.group_by("word", use_threads=False).aggregate([("place", "min")])["place_min"].to_numpy()
    return pairs.drop_columns("place").take(np.sort(places)[:most])
