"""A folder of a million images: seconds and memory of listing and planning it.

Images are empty files in folders of 10,000, each with a NAME.txt beside it or a row in a table; planning opens none.
`python -m tests.bench.bench_files [FILES] [beside|table|metadata]`
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from curate.pool.plan import make_plan
from curate.recipe.recipe import parse_recipe

IN_FOLDER = 10_000


def write_pool(folder, files, kind):
    """Writes the files, and what their captions are in."""
    rows = []
    for start in range(0, files, IN_FOLDER):
        (inner := folder / "pool" / f"{start // IN_FOLDER:04d}").mkdir(parents=True)
        for i in range(start, min(files, start + IN_FOLDER)):
            for suffix in ("jpg", "txt") if kind == "beside" else ("jpg",):
                os.close(os.open(f"{inner}/{i:07d}.{suffix}", os.O_CREAT | os.O_WRONLY))
            rows.append(f"pool/{inner.name}/{i:07d}.jpg,a photo of something with number {i},{i % 1000 / 1000},{i}\n")
    if kind == "table":
        (folder / "captions.csv").write_text("file_name,caption,score,number\n" + "".join(rows))


def plan(folder, kind):
    """Plans the pool in this process, and prints what it took."""
    more = {"table": f"{folder}/captions.csv"} if kind == "table" else {}
    recipe = parse_recipe({"input": {"name": "pool", "format": "files", "path": f"{folder}/pool", **more}})
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    planned = make_plan(recipe)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = f"{before.ru_maxrss / 1e6:.2f} GB before, {after.ru_maxrss / 1e6:.2f} GB at most"
    print(f"{kind}: {planned.pool.rows:,} rows, {len(planned.units):,} units: {seconds:.1f} s, {cpu:.1f} s CPU, {peak}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["plan"]:
        plan(*sys.argv[2:])
    else:
        count = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
        for form in sys.argv[2:] or ("beside", "table"):
            with tempfile.TemporaryDirectory() as place:
                write_pool(Path(place), count, form)
                subprocess.run([sys.executable, "-m", __spec__.name, "plan", place, form], check=True)
