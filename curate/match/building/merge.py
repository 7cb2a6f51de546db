"""Adds up the counts of all parts by bucket, and finds the pairs of words of enough mutual information.

`merge` has a bucket's words, and pairs whose first word is in it: it adds them up, and sends the pairs that are left on
to the bucket of their second word, with the count of the first. `find_pairs` has these, and the counts of the second.
What goes to a wiki as a whole is what may come in: of each bucket the first that it could have, whatever others have.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.base.numeric.arrays import whole
from curate.match.building.counts import SENT_PAIRS, WHOLE, Totals, from_bytes, split_table, to_bytes
from curate.match.building.entries import clean, joined
from curate.match.building.ngrams import WORDS
from curate.match.building.settings import BuildSettings

Key = tuple[str, int]  # a wiki, and a bucket of its words
Value = tuple[str, int, bytes]  # what it is of, an order or a number, and a table as bytes


def merge(key: Key, values: Sequence[Value], settings: BuildSettings, totals: Totals) -> Iterator[tuple[Key, Value]]:
    """Yield what a bucket has for the wiki as a whole, and for the buckets of second words."""
    wiki, bucket = key
    if bucket == WHOLE:
        yield from ((key, value) for value in values)
        return
    for kind in ("words", "titles"):
        parts = [from_bytes(data) for name, _, data in values if name == kind]
        table = _sum(pa.concat_tables(parts), WORDS) if parts else WORDS.empty_table()
        yield (wiki, WHOLE), (f"{kind} in all", len(table), b"")
        least = {"words": settings.limits.count, "titles": settings.limits.views}[kind]
        often = table.filter(pc.greater_equal(table["count"], pa.scalar(least))) if settings.is_first(wiki) else table
        kept = _first(often, [("count", "descending"), ("word", "ascending")], wiki, settings, totals)
        yield (wiki, WHOLE), (kind, 0, to_bytes(kept))
        if kind == "words":
            words = table
    limit = totals.rarest(wiki, settings.limits.pmi)
    rare = words.filter(pc.less_equal(words["count"], pa.scalar(limit)))
    if len(rare):
        yield key, ("words", 0, to_bytes(rare))
    parts = [from_bytes(data) for kind, _, data in values if kind == "pairs"]
    if parts:
        pairs = _sum(pa.concat_tables(parts), SENT_PAIRS)
        pairs = _with_count(pairs, "first", rare)
        for other, rows in split_table(pairs, "second", totals.buckets(wiki)):
            yield (wiki, other), ("pairs", 0, to_bytes(rows))


def find_pairs(
    key: Key, values: Sequence[Value], settings: BuildSettings, totals: Totals
) -> Iterator[tuple[str, tuple[str, Value]]]:
    """Yield, by the key of entries, what a wiki has as a whole, and the pairs of a bucket of second words."""
    wiki, bucket = key
    to = settings.keys[wiki]
    if bucket == WHOLE:
        yield from ((to, (wiki, value)) for value in values)
        return
    tables = {kind: [from_bytes(data) for name, _, data in values if name == kind] for kind in ("words", "pairs")}
    if not tables["words"] or not tables["pairs"]:
        return
    pairs = _with_count(pa.concat_tables(tables["pairs"]), "second", tables["words"][0])
    n, n_first, n_second = (pairs[name].to_numpy() for name in ("count", "count of first", "count of second"))
    ratio = n * float(totals.tokens[wiki]) / (n_first * n_second.astype(np.float64))
    least = 2.0**settings.limits.pmi
    enough = ratio >= least if settings.is_first(wiki) else ratio > least
    pmi = np.log2(ratio[enough])
    pairs = pairs.filter(pa.array(enough))
    words = joined(whole(pairs["first"]), whole(pairs["second"]), wiki)
    table = pa.table({"word": words, "count": whole(pairs["count"]), "pmi": pa.array(pmi)})
    yield to, (wiki, ("pairs in all", len(table), b""))
    order = [("pmi", "descending"), ("count", "descending"), ("word", "ascending")]
    yield to, (wiki, ("pairs", 0, to_bytes(_first(table, order, wiki, settings, totals))))


def _sum(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows of different words, or pairs, with the sums of their counts."""
    keys = schema.names[:-1]
    return table.group_by(keys, use_threads=False).aggregate([("count", "sum")]).rename_columns(schema.names)


def _with_count(pairs: pa.Table, side: str, words: pa.Table) -> pa.Table:
    """Return the pairs whose word of a side is among the words, with its count."""
    places = pc.index_in(whole(pairs[side]), value_set=whole(words["word"]))
    pairs = pairs.append_column(f"count of {side}", words["count"].take(places))
    return pairs.filter(places.is_valid())


def _first(table: pa.Table, order: list[Any], wiki: str, settings: BuildSettings, totals: Totals) -> pa.Table:
    """Return the rows that may become entries, in order: as many as may come in, and as many as may be there before."""
    limits = settings.limits
    words = clean(whole(table["word"]), wiki, settings)
    table = table.set_column(0, "word", words).filter(words.is_valid()).sort_by(order)
    most = 100 + totals.names.get(wiki, 0) + limits.words + limits.pairs + limits.titles
    if len(table) > most and not settings.is_first(wiki):
        table = table.append_column("place", pa.array(np.arange(len(table))))
        places = table.group_by("word", use_threads=False).aggregate([("place", "min")])["place_min"].to_numpy()
        table = table.drop_columns("place").take(np.sort(places)[:most])
    return table
