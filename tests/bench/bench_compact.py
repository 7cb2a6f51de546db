"""What compaction costs a unit, and what it saves those who query a run: `python -m tests.bench.bench_compact [--units 4000 16000]`

A run of units of six rows is written straight by the schemas, asked by `curate sql RUN funnel` in a process of its own,
compacted, and asked again. Printed are milliseconds of CPU a unit, and for both CPU, seconds and files, best of three.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice

from curate.publish.publish import compact_units, lay_out_chunks
from tests.kit import written_runs as runs

TABLES = ("samples", "scores", "members", "matches", "decisions")


def ask(url):
    """CPU and seconds of the command, best of three."""
    found = []
    for _ in range(3):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "curate", "sql", url, "funnel"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
        found.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, seconds))
    return min(found)


def compact(folder, units):
    """Compacts a run, and returns the CPU that it took, in seconds."""
    began = time.process_time()
    for chunk in lay_out_chunks([("photos", units)], dict.fromkeys(range(units), 6)):
        compact_units(folder, TABLES, chunk)
    spent = time.process_time() - began
    folder.delete_files([name for name in folder.files("tables") if "-" not in name])
    runs.finish(folder, runs.RUN)
    return spent


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 4000, 16000])
    for units in parser.parse_args().units:
        with tempfile.TemporaryDirectory() as url:
            folder = runs.write_units(url, list(islice(cycle(runs.SMALL), units)))
            before = ask(url)
            files = len(folder.files("tables"))
            spent = compact(folder, units)
            after = ask(url)
            fewer = len(folder.files("tables"))
            print(
                f"{units:6,} units: compaction {1000 * spent / units:.2f} ms of CPU a unit; funnel {before[0]:.2f} s of CPU, "
                f"{before[1]:.2f} s, {files:,} files → {after[0]:.2f} s of CPU, {after[1]:.2f} s, {fewer:,} files",
                flush=True,
            )


if __name__ == "__main__":
    main()
