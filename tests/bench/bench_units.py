"""What a unit costs, whatever it holds: CPU and peak memory of runs of many tiny units, and whether both stay flat.

    python -m tests.bench.bench_units [--units 1000 4000 16000] [--recipe text|rich]

Each run is a process of its own, timed whole, over a pool of text in row groups of eight rows, each of which is a unit.
What a unit costs is the difference between two runs, divided by that of their units.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.recipe.recipe import load_recipe
from pipelines.claim import claimed
from pipelines.driver import run
from pipelines.prepare import prepare

ROWS = 8  # of a unit
_GROUPS = 10  # units of a file
_WORDS = ["a", "photo", "of", "the", "red", "dog", "cat", "house", "by", "sea", "old", "tree", "car", "hill", "blue"]
RECIPES = {
    "text": {"rules": {"words": "words > 2"}, "dedup": {"by": ["uid"]}},
    "rich": {
        "rules": {"words": {"top": 0.9, "of": "words"}, "characters": {"top": 0.9, "of": "characters"}},
        "dedup": {"by": ["uid"]},
    },
}


def write_pool(folder, units):
    """Write files of `_GROUPS` row groups of ROWS rows: a URL and a caption of a few words."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(0, units, _GROUPS):
        rows = min(_GROUPS, units - number) * ROWS
        captions = [" ".join(rng.choice(_WORDS, rng.integers(1, 9))) for _ in range(rows)]
        urls = [f"https://example.com/{number * ROWS + i:09d}.jpg" for i in range(rows)]
        pq.write_table(
            pa.table({"url": urls, "caption": captions}), folder / f"{number:06d}.parquet", row_group_size=ROWS
        )


def write_recipe(folder, units, name):
    """Write a pool of so many units and a recipe; return their folder."""
    place = folder / f"{name}-{units}"
    write_pool(place / "pool", units)
    (place / "metadata.txt").write_text("".join(f"{word}\n" for word in _WORDS[1:]))
    recipe = {
        "input": {"name": "pool", "format": "parquet", "path": f"{place}/pool/*.parquet"},
        "match": {"metadata": str(place / "metadata.txt")},
        "balance": {"rows": units * ROWS // 3},
        **RECIPES[name],
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    return place


def run_units(folder, units, name):
    """Return CPU seconds and peak bytes of a run of so many units."""
    place = write_recipe(folder, units, name)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, "--folder", str(place)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"a run of {units} units ended with status {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, usage.ru_maxrss * 1024


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=[1000, 4000, 16000])
    parser.add_argument("--recipe", choices=list(RECIPES), default="text")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        prepared = prepare(load_recipe(f"{options.folder}/recipe.yaml"), f"{options.folder}/run", unit_size=ROWS)
        with claimed(prepared):
            run(prepared)
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for units in options.units:
            found.append((units, *run_units(Path(folder), units, options.recipe)))
            print(
                f"{units:6,} units of {ROWS} rows: {found[-1][1]:7.1f} s of CPU, peak {found[-1][2] / 1e6:7.0f} MB",
                flush=True,
            )
    (few, cpu, peak), (many, more_cpu, more_peak) = found[0], found[-1]
    if many > few:
        each = many - few
        print(f"a unit: {1000 * (more_cpu - cpu) / each:.2f} ms of CPU, {(more_peak - peak) / each:,.0f} bytes")


if __name__ == "__main__":
    main()
