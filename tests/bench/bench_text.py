"""A text-only run end to end: rows per second, the matcher's share, threads against processes, memory flat in the pool.

    python -m tests.bench.bench_text --captions FILE.parquet --column TEXT --metadata FILE [--rows 1200000] [--before FOLDER]

The pool repeats the given captions with distinct URLs; with `--distinct` each caption ends with its row's number, so that none
repeats. Each run is a process of its own, timed whole; the matcher's share is its CPU time on the same captions, alone in one
process. `--before` is a checkout to compare with, whole runs in turn: ratios are of the medians, and nothing else is measured.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.match.matcher import build_matcher
from curate.match.metadata import read_metadata

HERE = Path(__file__).resolve().parents[2]
MODES = {
    "threads (default)": [],
    "one thread": ["--runner=FnApiRunner", "--no_pipeline_type_check"],
    "two processes": [
        "--runner=FnApiRunner",
        "--no_pipeline_type_check",
        "--direct_num_workers=2",
        "--direct_running_mode=multi_processing",
    ],
}


def write_pool(folder, captions, rows, distinct=False):
    """Parquet files of 300,000 rows, in row groups of 100,000."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, rows, 300_000)):
        count = min(300_000, rows - first)
        texts = captions.take(pa.array(rng.integers(0, len(captions), count)))
        if distinct:
            numbers = pa.array(np.arange(first, first + count)).cast(texts.type)
            texts = pc.binary_join_element_wise(texts.fill_null(""), numbers, " ")
        urls = pa.array([f"https://example.com/images/{first + i:012d}.jpg" for i in range(count)])
        pq.write_table(
            pa.table({"url": urls, "caption": texts}), folder / f"{number:05d}.parquet", row_group_size=100_000
        )


def run(recipe, out, options, checkout=HERE):
    """Wall seconds, CPU seconds and peak MB (the largest process) of a whole `curate run`."""
    command = [sys.executable, "-m", "curate", "run", str(recipe), "--out", str(out)]
    env = os.environ | {"PYTHONPATH": str(checkout), "NUMBA_CACHE_DIR": f"{recipe.parent}/numba{checkout.as_posix()}"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [*command, *(["--", *options] if options else [])],
        cwd=checkout,  # which Python looks into first
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu, usage.ru_maxrss / 1024


def compare(recipe, first, rows, before, repeat):
    """Print the figures of whole runs of another checkout and of this one, in turn, and their ratios; `first` is run to compile."""
    found = {before: [], HERE: []}
    for attempt in range(-1, repeat):
        for checkout, figures in found.items():
            out = recipe.parent / "compared"
            figures.append(run(recipe if attempt >= 0 else first, out, [], checkout))
            shutil.rmtree(out)
    medians = [[statistics.median(column) for column in zip(*figures[1:], strict=True)] for figures in found.values()]
    for checkout, (wall, cpu, peak) in zip(found, medians, strict=True):
        print(
            f"{checkout.name:18} {rows / wall:9,.0f} rows/s  wall {wall:6.2f} s  CPU {cpu:6.2f} s  peak {peak:6.0f} MB"
        )
    wall, cpu, peak = (old / new for old, new in zip(*medians, strict=True))
    print(f"{wall:.2f} x the rows per second, {cpu:.2f} x less CPU, {1 / peak:.2f} x the memory")


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", required=True)
    parser.add_argument("--column", default="TEXT")
    parser.add_argument("--metadata", required=True)
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--distinct", action="store_true")
    options = parser.parse_args()
    captions = pq.read_table(options.captions, columns=[options.column])[options.column].combine_chunks()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        recipe = "input: [{{name: pool, format: parquet, path: '{}/*.parquet'}}]\nmatch: {{metadata: {}}}\nrules: {{words: words > 2}}\nbalance: {{t: 2000}}\n"
        others = {"first": 1000} if options.before else {"large": 4 * options.rows}
        for name, rows in {"pool": options.rows, **others}.items():
            write_pool(here / name, captions, rows, options.distinct)
            (here / f"{name}.yaml").write_text(recipe.format(here / name, Path(options.metadata).resolve()))
        if options.before:
            compare(here / "pool.yaml", here / "first.yaml", options.rows, options.before.resolve(), options.repeat)
            return
        best = {}
        for attempt in range(options.repeat):
            for mode, beam in MODES.items():
                found = run(here / "pool.yaml", here / f"{mode[:4]}{attempt}", beam)
                best[mode] = min(best.get(mode, found), found)
        for mode, (wall, cpu, peak) in best.items():
            print(
                f"{mode:18} {options.rows / wall:9,.0f} rows/s  wall {wall:6.2f} s  CPU {cpu:6.2f} s  peak {peak:6.0f} MB"
            )
        texts = pq.read_table(here / "pool", columns=["caption"])["caption"].combine_chunks()
        matcher = build_matcher(read_metadata(options.metadata)[0]["entry"].combine_chunks())
        matcher.match(texts.slice(0, 1000))
        began = time.process_time()
        matcher.match(texts)
        alone = time.process_time() - began
        cpu = best["threads (default)"][1]
        print(f"the matcher alone  {alone:.2f} s of CPU: {alone / cpu:.1%} of the run's {cpu:.2f} s")
        wall, _, peak = run(here / "large.yaml", here / "large-run", [])
        small = best["threads (default)"][2]
        allowed = small * 1.15 + 32 * 3 * options.rows / 2**20
        print(
            f"four times as many {4 * options.rows / wall:9,.0f} rows/s  peak {peak:.0f} MB, {peak / small:.2f} x; allowed {allowed:.0f} MB"
        )


if __name__ == "__main__":
    main()
