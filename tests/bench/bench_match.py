"""The matcher against pyahocorasick, the naive loop and its own ceiling, in texts per CPU-second.

    python -m tests.bench.bench_match --data FOLDER

FOLDER holds metadata_396k.json.gz and laion_urls_10k.parquet. Every measure is repeated until it has lasted half a
second, five times, and the fastest is told. The rivals do what MetaCLIP's code does: spaces around each entry, the
spaced text, ids collected into a set. The ceiling is what no matcher on atoms can do without: cutting the same texts
into the same atoms and hashing them, with nothing looked up. Prints one table for the captions as they are and one for
the captions in lower case, which match more; fails where two ways find different matches.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

import ahocorasick
import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.numeric.arrays import string_buffers
from curate.match import kernel
from curate.match.matcher import build_matcher


def spaced(text):
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    return text.replace("\t", " ").replace("\n", " ").replace("\r", " ")


def by_automaton(automaton, texts):
    return [{i for _, i in automaton.iter(spaced(text))} for text in texts]


def by_loop(needles, texts):
    return [{i for i, n in enumerate(needles) if n in s} for s in map(spaced, texts)]


@numba.njit(nogil=True)
def hash_only(tables, data, offsets):
    """The first stages of `kernel.match_texts`, block by block: the texts cut into atoms, the atoms hashed."""
    texts, block, languages = len(offsets) - 1, kernel._new_scratch(1 << 18), np.zeros(512, np.int32)
    first, h = 0, np.uint64(0)
    while first < texts:
        stop = first + 1
        while stop < min(texts, first + 512) and offsets[stop + 1] - offsets[first] <= 4096:
            stop += 1
        kernel._cut_texts(tables, data, offsets[first : stop + 1], languages[: stop - first], block)
        for j in range(block.atom_at[stop - first]):
            h ^= kernel._hash_atom(block.bytes, block.start[j], block.length[j])
        first = stop
    return h


def rate(work, texts, rounds=5):
    """Texts per CPU-second of `work`, which handles `texts` texts."""
    work()
    best, repeats = 0.0, 1
    while rounds:
        start = time.process_time()
        for _ in range(repeats):
            work()
        seconds = time.process_time() - start
        if seconds < 0.5:
            repeats = int(repeats * 0.7 / max(seconds, 0.001)) + 1
            continue
        best, rounds = max(best, repeats * texts / seconds), rounds - 1
    return best


def compare(matcher, automaton, entries, texts):
    captions = texts.to_pylist()
    found = [set(ids) for ids in matcher.match(texts).to_pylist()]
    if by_automaton(automaton, captions) != found:
        raise SystemExit("the matcher and the automaton differ")
    needles = [f" {entry} " for entry in entries]
    if by_loop(needles, captions[:10]) != found[:10]:
        raise SystemExit("the matcher and the loop differ")
    data, offsets = string_buffers(texts)
    ours = rate(lambda: matcher.match(texts), len(texts))
    rows = [
        ("curate, Matcher.match", ours),
        ("pyahocorasick", rate(lambda: by_automaton(automaton, captions), len(texts), rounds=3)),
        ("naive loop over entries", rate(lambda: by_loop(needles, captions[:20]), 20, rounds=1)),
        ("ceiling: atoms and their hashes", rate(lambda: hash_only(matcher._tables, data, offsets), len(texts))),
    ]
    for name, texts_per_second in rows:
        print(
            f"  {name:34} {texts_per_second:14,.0f} texts/CPU-s   ours is {ours / texts_per_second:10,.2f} times that"
        )


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    with gzip.open(data / "metadata_396k.json.gz") as file:
        entries = json.load(file)
    captions = pq.read_table(data / "laion_urls_10k.parquet", columns=["TEXT"])["TEXT"].combine_chunks()
    array = pa.array(entries)
    build_matcher(array)
    start = time.perf_counter()
    matcher = build_matcher(array)
    print(f"{len(entries):,} entries; matcher built in {time.perf_counter() - start:.2f} s", end="")
    start = time.perf_counter()
    automaton = ahocorasick.Automaton()
    for i, entry in enumerate(entries):
        automaton.add_word(f" {entry} ", i)
    automaton.make_automaton()
    print(f", automaton in {time.perf_counter() - start:.2f} s")
    print(f"the matcher's tables take {sum(table.nbytes for table in matcher._tables) / 1e6:.0f} MB")
    for name, texts in [("as they are", captions), ("lower case", pc.utf8_lower(captions))]:
        matches = len(matcher.match(texts).values)
        print(f"{len(texts):,} captions {name}, {matches / len(texts):.2f} matches a caption")
        compare(matcher, automaton, entries, texts)


if __name__ == "__main__":
    main()
