"""A pool of texts in five languages, some with the same image, and naive definitions of balancing per language."""

from collections import Counter
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests import kit
from tests.kit.metaclip import inclusion

SIZES = {"en": 400, "de": 220, "ja": 120, "tr": 60, "sw": 8}  # rows of each language
ENTRIES = 40  # of each language, of which the last two never occur


def make_texts(seed=0, sizes=SIZES):
    """Rows of caption, url and lang in a mixed order: of six rows two share a URL with others."""
    rng = np.random.default_rng(seed)
    rows = []
    for name, size in sizes.items():
        weights = 1 / np.arange(1, ENTRIES - 1)
        for i in range(size):
            words = rng.choice(ENTRIES - 2, rng.integers(1, 5), p=weights / weights.sum())
            shared = f"https://a.example/shared/{rng.integers(sum(sizes.values()) // 8)}.jpg"
            url = shared if i % 6 < 2 else f"https://a.example/{name}/{i}.jpg"
            rows.append({"caption": " ".join([*(f"{name}{w}" for w in words), f"{i}"]), "url": url, "lang": name})
    return [rows[i] for i in rng.permutation(len(rows))]


def write_pool(folder, rows, shards):
    """Writes the rows in so many files, and returns their folder."""
    (pool := folder / f"pool{shards}").mkdir(parents=True)
    columns = pa.schema([(name, pa.string()) for name in ("caption", "url", "lang")])
    for i, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
        pq.write_table(pa.Table.from_pylist([rows[k] for k in part], columns), pool / f"{i:03d}.parquet")
    return pool


def write_entries(folder, sizes=SIZES):
    """Writes the metadata: consecutive entries of each language."""
    entries = [(f"{name}{i}", name) for name in sizes for i in range(ENTRIES)]
    columns = {"entry_id": pa.array(range(len(entries)), pa.int32()), "entry": [entry for entry, _ in entries]}
    columns |= {"source": ["test"] * len(entries), "language": [name for _, name in entries]}
    pq.write_table(pa.table(columns), folder / "entries.parquet")
    return folder / "entries.parquet"


def write_all(folder):
    """Writes the metadata, and the pool in 1, 7 and 17 files; returns the folder."""
    write_entries(folder)
    for shards in (1, 7, 17):
        write_pool(folder, make_texts(), shards)
    return folder


def recipe_of(pool, entries, seed=0, **balance):
    """Balancing per language of a pool."""
    balance = {"scheme": "per_language", **balance}
    sections = {"match": {"metadata": str(entries)}, "balance": balance, "seed": seed}
    source = {"columns": {"language": "lang"}}
    return kit.recipe_of(f"{pool}/*.parquet", "parquet", source=source, **sections)


def published_t(counts, share):
    """MetaCLIP 2's t of a share, by its definition: the count whose cumulative share is nearest, the first of equals."""
    ascending, total = sorted(counts), sum(counts)
    distances = [abs(reached / total - share) for reached in accumulate(ascending)]
    return ascending[distances.index(min(distances))]


def published_share(counts, t):
    """MetaCLIP 2's share of a t, by its definition."""
    return sum(count for count in counts if count < t) / sum(counts)


def naive_ts(counts, t, language="en"):
    """The t of each language with a match, by the definitions, zeros left out."""
    share = published_share(counts[language], t)
    matched = {name: [count for count in of if count] for name, of in counts.items()}
    others = {name: published_t(of, share) for name, of in matched.items() if of and name != language}
    return {language: t, **others}


def naive_probabilities(rows, ts):
    """π of rows with these entries, each named by its language and a number."""
    counts = Counter(entry for row in rows for entry in row)
    return [inclusion(row, counts, {entry: ts[entry[:2]] for entry in row}) for row in rows]


def counts_of(rows):
    """The rows of each entry by language, zeros of those that never occur included."""
    counts = Counter(entry for row in rows for entry in row)
    return {name: [counts[f"{name}{i}"] for i in range(ENTRIES)] for name in SIZES}
