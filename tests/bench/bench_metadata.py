"""A build of metadata: MB of text per second and peak memory, beside nltk's collocation finder on a part of the same text.

    python -m tests.bench.bench_metadata [--megabytes 1000] [--of-nltk 50] [--dump FILE.xml.bz2]

The text is drawn, as Parquet of Wikipedia's layout: four million words by Zipf's law.
nltk counts words and pairs and scores by mutual information, as MetaCLIP did; it is given tokens that are cut already. With
`--dump`, the dump's plain text is made by `strip_markup` and by mwparserfromhell, one thread each. Each is a process of its own.
"""

import argparse
import bz2
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_FILE = 50  # MB of text


def draw_texts(megabytes, seed, words):
    """Texts of 1,000 words, as many MB: word k by a chance of (k + 2.7)^-1.3, which has English's share of rare ones."""
    rng = np.random.default_rng(seed)
    cumulated = np.cumsum((np.arange(len(words)) + 3.7) ** -1.3)
    parts = []
    while sum(part.nbytes for part in parts) < megabytes * 1_000_000:
        ranks = np.searchsorted(cumulated, rng.random(1_000_000) * cumulated[-1])
        lists = pa.ListArray.from_arrays(
            np.arange(0, len(ranks) + 1, 1000, dtype=np.int32), words.take(pa.array(ranks))
        )
        parts.append(pc.binary_join(lists, " "))
    return pa.concat_arrays(parts)


def spell_words():
    """Four million words, the shorter the more frequent they are; one in twelve ends a clause."""
    letters = "etaoinshrdlucmfwypvbgkjqxzäöü"

    def spell(rank):
        word, number = "", rank + 29
        while number:
            word, number = letters[number * 7 % 29] + word, number // 11
        return f"{word}," if rank % 12 == 5 else word

    return pa.array(map(spell, range(4_000_000)), pa.string())


def write_texts(folder, megabytes, words):
    """Files of 50 MB in row groups of 1,000 pages."""
    folder.mkdir(parents=True)
    for number in range(-(-megabytes // _FILE)):
        table = pa.table({"text": draw_texts(min(_FILE, megabytes), number, words)})
        pq.write_table(table, folder / f"train-{number:05}.parquet", row_group_size=1000)


def measure(*command):
    """Wall and CPU seconds, and peak MB, of a process."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def of_nltk(folder):
    """What nltk does of the first file; called in a process of its own."""
    from nltk.collocations import BigramAssocMeasures, BigramCollocationFinder

    texts = pq.read_table(sorted(Path(folder).glob("*.parquet"))[0])["text"].to_pylist()
    finder = BigramCollocationFinder.from_documents(text.split() for text in texts)
    finder.score_ngrams(BigramAssocMeasures.pmi)


def compare_markup(path):
    """Seconds and words of both ways to make plain text."""
    import mwparserfromhell

    from curate.match.building.dumps import Articles
    from curate.match.building.wikitext import strip_markup

    with open(path, "rb") as file:
        articles = Articles(file, path, 0, os.stat(path).st_size)
        pages = list(articles)
    size = sum(len(page.encode()) for page in pages) / 1e6
    began = time.process_time()
    ours = [strip_markup(page, articles.namespaces) for page in pages]
    seconds = time.process_time() - began
    began = time.process_time()
    theirs = [mwparserfromhell.parse(page).strip_code() for page in pages]
    of_theirs = time.process_time() - began
    a, b = (sum((Counter(re.findall(r"\w+", text)) for text in texts), Counter()) for texts in (ours, theirs))
    both = (a & b).total()
    print(
        f"plain text of {size:.1f} MB of wikitext: {size / seconds:.1f} MB/s; mwparserfromhell {size / of_theirs:.2f} MB/s"
    )
    print(f"words: {a.total():,} and {b.total():,}, {both:,} the same (mwparserfromhell keeps references and tables)")
    began = time.process_time()
    packed = bz2.decompress(Path(path).read_bytes())
    print(f"to unpack it: {len(packed) / 1e6 / (time.process_time() - began):.0f} MB/s of XML")


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--of-nltk", type=int, default=50)
    parser.add_argument("--dump")
    options = parser.parse_args()
    if options.dump:
        compare_markup(options.dump)
    with tempfile.TemporaryDirectory() as folder:
        words = spell_words()
        write_texts(Path(folder) / "20260101.en", options.megabytes, words)
        write_texts(Path(folder) / "20260101.de", options.of_nltk, words)
        del words
        command = ["-m", "curate", "metadata", "build", "--out", f"{folder}/out.parquet", "--wiki"]
        measure(*command, f"{folder}/20260101.de")  # compiles
        for name, megabytes in (("20260101.de", options.of_nltk), ("20260101.en", options.megabytes)):
            wall, cpu, peak = measure(*command, f"{folder}/{name}")
            print(
                f"curate, {megabytes:5} MB  {megabytes / wall:6.1f} MB/s  wall {wall:6.1f} s  CPU {cpu:6.1f} s  peak {peak:6.0f} MB"
            )
        call = f"from tests.bench.bench_metadata import of_nltk; of_nltk({f'{folder}/20260101.de'!r})"
        wall, cpu, peak = measure("-c", call)
        size = options.of_nltk
        print(
            f"nltk,   {size:5} MB  {size / wall:6.1f} MB/s  wall {wall:6.1f} s  CPU {cpu:6.1f} s  peak {peak:6.0f} MB"
        )


if __name__ == "__main__":
    main()
