"""Matching by language: against the reference on the same English texts and entries, and memory for many entries.

    python -m tests.bench.bench_languages --data FOLDER [--entries 4000000]

FOLDER holds metadata_396k.json.gz and laion_urls_10k.parquet. Speed is in texts per CPU-second. Memory is of drawn entries of 50 languages, words and pairs of words of ten letters, half with a first
word that others have: bytes of tables an entry, and the seconds and the peak of building them.
"""

import argparse
import gzip
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.match.matcher import build_matcher, build_tables
from tests.bench.bench_match import rate

MOST = 1.5  # times the reference's time


def speed(data):
    """Print texts per CPU-second of all modes."""
    with gzip.open(data / "metadata_396k.json.gz") as file:
        entries = pa.array(json.load(file))
    texts = pq.read_table(data / "laion_urls_10k.parquet", columns=["TEXT"])["TEXT"].combine_chunks()
    codes = pa.repeat(pa.scalar("en"), len(texts))
    reference = build_matcher(entries)
    for mode in ("worldwide", "corrected"):
        matcher = build_matcher(entries, pa.repeat(pa.scalar("en"), len(entries)), mode)
        rates = [
            (
                rate(lambda: reference.match(texts), len(texts), 2),
                rate(lambda m=matcher: m.match(texts, codes), len(texts), 2),
            )
            for _ in range(5)
        ]
        plain, ours = (max(of) for of in zip(*rates, strict=True))
        print(f"{mode:10} {ours:12,.0f} texts/CPU-s, {plain / ours:.2f} times the reference's time ({plain:,.0f})")
        print(f"{'':10} it may take {MOST} times" + (", and takes longer" if plain / ours > MOST else ""))


def memory(count):
    """Print the bytes that the tables of drawn entries take."""
    rng = np.random.default_rng(0)
    letters = np.array([*b"abcdefghijklmnopqrstuvwxyz"], np.uint8)[rng.integers(0, 26, (count, 10))]
    offsets = pa.py_buffer(np.arange(0, 10 * count + 1, 10, dtype=np.int32).data)
    words = pa.Array.from_buffers(pa.string(), count, [None, offsets, pa.py_buffer(letters.data)])
    first = words.take(pa.array(rng.integers(0, count // 4, count)))
    pairs = pc.binary_join_element_wise(first, words, " ")
    entries = pc.if_else(pa.array(rng.random(count) < 0.5), words, pairs)
    keys = pa.DictionaryArray.from_arrays(np.sort(rng.integers(0, 50, count)), [f"l{i}" for i in range(50)]).cast(
        pa.string()
    )
    with tempfile.TemporaryDirectory() as folder:
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        build_tables(entries, keys, "worldwide", Path(folder))
        seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sizes = {path.name: path.stat().st_size / count for path in sorted(Path(folder).iterdir())}
    each = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
    print(
        f"{count:,} entries: {sum(sizes.values()):.1f} bytes an entry ({each}); built in {seconds:.0f} s, {(peak - before) >> 10} MB more"
    )
    print(f"27,000,000 entries: {27e6 * sum(sizes.values()) / 1e9:.2f} GB, mapped once a machine")


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--entries", type=int, default=4_000_000)
    options = parser.parse_args()
    memory(options.entries)
    speed(options.data)


if __name__ == "__main__":
    main()
