"""What-if on a large pool: seconds beside a bare scan of the columns that it needs, and beside the rerun that it saves.

    python -m tests.bench.bench_whatif --captions FILE.parquet --column TEXT --metadata FILE [--rows 10000000] [--folder DIR]

The pool repeats the given captions with distinct URLs, and 3 % of its rows. Each question is a process of its own, timed
whole, the start of Python included; a rerun is `curate run --reuse` with the same changes. Wall seconds mean little while
others use the machine: CPU seconds stand beside them.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

RECIPE = """
name: bench
input: [{{name: pool, format: parquet, path: '{folder}/pool/*.parquet'}}]
match: {{metadata: '{metadata}'}}
rules:
  english: language = 'en'
  words: words > 2
  side: width >= 200 and height >= 200
  aligned: {{top: 0.6, of: similarity}}
balance: {{t: 2000}}
output: {{rows_per_shard: 100000}}
"""
T, RULE, FRACTION = "balance.t=500", "rules.side=width >= 300 and height >= 300", "rules.aligned.top=0.3"
QUESTIONS = {
    "t": ["--set", T],
    "a rule": ["--set", RULE],
    "a fraction": ["--set", FRACTION],
    "deduplication": ["--set", "dedup.prefer=similarity"],
    "20 t": ["--sweep", "balance.t=100..100000", "--points", "20"],
    "12 fractions": ["--sweep", "rules.aligned.top=0.05..0.95", "--points", "12"],
    "t of a size": ["--rows", "{half}"],
    "fraction of a size": ["--rows", "{half}", "--by", "rules.aligned.top"],
}
RERUNS = {"t": T, "a rule": RULE}
SCANS = {
    "t": "SELECT count(d.rule), sum(len(m.entry_ids)), count(DISTINCT s.language) FROM {decisions} d POSITIONAL JOIN {matches} m POSITIONAL JOIN {samples} s",
    "a rule": "SELECT count(d.rule), sum(len(m.entry_ids)), count(DISTINCT s.language), sum(s.words + s.width + s.height), max(s.uid), "
    "count(s.status), sum(c.similarity) FROM {decisions} d POSITIONAL JOIN {matches} m POSITIONAL JOIN {samples} s POSITIONAL JOIN {scores} c",
}


def write_pool(folder, captions, rows):
    """Parquet files of 500,000 rows, in row groups of 100,000."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, rows, 500_000)):
        count = min(500_000, rows - first)
        ids = np.arange(first, first + count)
        again = rng.random(count) < 0.03
        ids[again] = rng.integers(0, first + count, again.sum())
        table = pa.table(
            {
                "url": [f"https://example.com/images/{i:012d}.jpg" for i in ids.tolist()],
                "caption": captions.take(pa.array(ids * 2654435761 % 2**32 % len(captions))),
                "width": pa.array(rng.integers(64, 2000, count), pa.int32()),
                "height": pa.array(rng.integers(64, 2000, count), pa.int32()),
                "language": pa.array(rng.choice(["en", "de", "fr"], count, p=[0.8, 0.1, 0.1])),
                "similarity": pa.array(np.clip(rng.normal(0.3, 0.06, count), 0, 1), pa.float32()),
            }
        )
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=100_000)


def time_step(command):
    """Wall seconds, CPU seconds and peak MB of a process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (command, said)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.perf_counter() - began,
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        usage.ru_maxrss / 1024,
    )


def curate(*arguments):
    return ["-m", "curate", *arguments]


def scan(run, name):
    """The columns of a question, read by DuckDB and added up: what cannot be saved."""
    tables = {table: f"'{run}/tables/{table}/*.parquet'" for table in ("decisions", "matches", "samples", "scores")}
    return ["-c", f"import duckdb; print(duckdb.sql({SCANS[name].format(**tables)!r}).fetchall())"]


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", required=True)
    parser.add_argument("--column", default="TEXT")
    parser.add_argument("--metadata", required=True)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--folder", help="where pool and run stand, or are made and stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        run, recipe = folder / "run", folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(folder=folder, metadata=Path(options.metadata).resolve()))
        if not (folder / "pool").exists():
            write_pool(folder / "pool", pq.read_table(options.captions)[options.column].combine_chunks(), options.rows)
        if not (run / "_SUCCESS").exists():
            print(
                f"{'the run':34} wall {time_step(curate('run', str(recipe), '--out', str(run)))[0]:7.2f} s", flush=True
            )
        kept = len(np.load(run / "uids.npy"))
        report(run, recipe, temporary, options.repeat, str(kept // 2))


def report(run, recipe, temporary, repeat, half):
    """Times each question, its scan and its rerun, the least of some repetitions."""

    def best(command, times):
        return min((time_step(command) for _ in range(times)), key=lambda found: found[1])

    start = best(curate("--version"), repeat)
    print(f"{'start of the command':34} wall {start[0]:7.2f} s  CPU {start[1]:7.2f} s", flush=True)
    for name, question in QUESTIONS.items():
        asked = curate("whatif", str(run), *(part.format(half=half) for part in question))
        wall, cpu, peak = best(asked, repeat)
        line = f"{name:34} wall {wall:7.2f} s  CPU {cpu:7.2f} s  peak {peak:6.0f} MB"
        if name in SCANS:
            bare = best(scan(run, name), repeat)
            line += f"   scan CPU {bare[1]:6.2f} s: x {cpu / bare[1]:.1f}"
        if name in RERUNS:
            again = time_step(
                curate("run", str(recipe), "--out", f"{temporary}/{name}", "--reuse", str(run), "--set", RERUNS[name])
            )
            line += f"   rerun wall {again[0]:6.1f} s CPU {again[1]:6.1f} s: x 1/{again[1] / cpu:.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
