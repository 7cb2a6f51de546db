"""Whether uids.npy takes as much memory of 300 million kept uids as of 30 million: peak bytes, CPU and files.

    python -m tests.bench.bench_uids [--rows 30000000 300000000] [--units 3000]

Each run is a process of its own: units of a tiny pool, as many whatever the uids, for a unit takes memory too, each give
random uids on the local engine as if it had kept them; they are split, sorted and written as in a run. The file's
length and order are checked. The peak is what the process says of itself: what the system says has that of the process
that began it, which maps the file before.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import apache_beam as beam
import numpy as np

from curate.base.ids import digest
from curate.publish.uids import PAIR, sort_parts, split_pairs, write_uids
from curate.recipe.recipe import load_recipe
from curate.store.layout import UIDS_FILE
from pipelines.prepare import prepare
from pipelines.steps.units import BeamUnits
from tests.bench.bench_units import ROWS, write_recipe


def sort_synthetic(folder, rows, number):
    """Write uids.npy of so many random uids of units of that number below the folder."""
    recipe = load_recipe(str(write_recipe(folder, number, "text") / "recipe.yaml"))
    prepared = prepare(recipe, str(folder / "run"), unit_size=ROWS)
    context, n_buckets = prepared.context, max(4, min(1024, rows // 250_000))

    def split(tables, unit):
        seed = int(digest([unit.index])[:8], 16)
        pairs = np.random.default_rng(seed).integers(1 << 64, size=2 * (rows // number), dtype="u8").view(PAIR)
        yield from split_pairs(pairs, n_buckets)

    prepared.engine.set_up()
    root = beam.Pipeline(options=prepared.engine.options)
    with context.store.temporary_folder() as spool:
        units = BeamUnits(root, prepared.plan.units, context, spool=spool)
        parts = units.group("Sort", units.pairs("Split", split), sort_parts, context.store).side_output
        units.get("Write", lambda parts: write_uids(context.store, parts), parts)
        units.finish()
        root.run().wait_until_finish()


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000_000, 300_000_000])
    parser.add_argument("--units", type=int, default=3000)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        sort_synthetic(Path(options.folder), options.rows[0], options.units)
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        Path(options.folder, "peak").write_text(status["VmHWM"].split()[0])
        return
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            of_run = ["--folder", folder, "--rows", str(rows), "--units", str(options.units)]
            process = subprocess.Popen([sys.executable, "-m", __spec__.name, *of_run])
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{rows} uids ended with status {status}")
            uids = np.load(f"{folder}/run/{UIDS_FILE}", mmap_mode="r")
            steps = range(0, len(uids), 1 << 20)
            high = (uids["f0"][i : i + (1 << 20) + 1] for i in steps)
            is_sorted = all((part[1:] >= part[:-1]).all() for part in high)
            peak, cpu = int(Path(folder, "peak").read_text()) / 1024, usage.ru_utime + usage.ru_stime
            right = "sorted" if is_sorted and len(uids) == rows else "WRONG"
            print(f"{rows:11,} uids: peak {peak:5,.0f} MB, {cpu:6.1f} s of CPU; {right}", flush=True)


if __name__ == "__main__":
    main()
