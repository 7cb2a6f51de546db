"""What Spark costs beside the local runner: a stage besides its bundles, and the driver's memory; `python -m tests.bench.bench_spark`.

    python -m tests.bench.bench_spark [--units 16 1000 16000] [--master local[2]]
    python -m tests.bench.bench_spark --seconds 600
    python -m tests.bench.bench_spark --near 300000

Each run is a process of its own over a pool of text in units of eight rows (see bench_units). Printed are, for each number of units:
seconds, CPU seconds of all processes, peak bytes of the driver (its Python and its Java, which for a local master is the
executors' too), bytes shuffled; and the seconds that a stage takes besides its bundles, which share the cores: median and mean,
and what of it a unit more costs. With `--seconds` there are so many units of a second of CPU each, of a tar with photographs. With `--near` there are so many
tiny images of noise, a tenth of them copies with a pixel changed: printed are bytes per row, in tables and between steps.
"""

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from PIL import Image

from curate.recipe.recipe import load_recipe
from pipelines.claim import claimed
from pipelines.driver import run
from pipelines.prepare import prepare
from tests.bench.bench_units import ROWS, write_recipe

IMAGES = 400  # of a unit of a second
IN_TAR = 5000
_WORDS = ["red", "old", "small", "house", "dog", "river", "street", "in", "winter", "morning", "with", "people"]


class Took(NamedTuple):
    """What a run took: seconds, CPU seconds of all processes, the driver's bytes; a stage's seconds besides bundles, bytes shuffled."""

    seconds: float
    cpu: float
    memory: int
    besides: list[float]
    shuffled: int


class Watch(threading.Thread):
    """Follows a process and all below it: CPU seconds of each, and the most bytes that it and its Java had together."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self._process, self._seconds, self.memory = psutil.Process(process), dict[int, float](), 0

    def run(self):
        with suppress(psutil.Error):  # it has ended
            while self._process.is_running():
                driver = 0
                for one in (self._process, *self._process.children(recursive=True)):
                    with suppress(psutil.Error), one.oneshot():
                        times = one.cpu_times()
                        self._seconds[one.pid] = times.user + times.system
                        if one == self._process or one.name() == "java":
                            driver += one.memory_info().rss
                self.memory = max(self.memory, driver)
                time.sleep(0.1)

    @property
    def cpu(self):
        return sum(self._seconds.values())


def write_seconds(folder, units):
    """Write a recipe and its pool: units of one tar, each of which takes a second of CPU or so."""
    from tests.bench.bench_emit import make_pool  # which imports torch, and this module is the runs' too

    tar = make_pool(folder, 1, IMAGES, 640, 480)[0]
    (folder / "pool").mkdir()
    for number in range(units):
        os.link(tar, folder / f"pool/{number:05d}.tar")
    recipe = {
        "input": {"name": "pool", "format": "webdataset", "path": f"{folder}/pool/*.tar"},
        "measure": {"image": {"phash": True}},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def write_near(folder, rows):
    """Write a recipe with a search for near-duplicates, and its pool: images of noise, every tenth with a copy in which a pixel is changed."""
    rng, tars = np.random.default_rng(0), -(-rows // IN_TAR)
    (folder / "pool").mkdir()
    for tar in range(tars):
        with tarfile.open(folder / f"pool/{tar:05d}.tar", "w") as file:
            pixels = rng.integers(0, 256, (min(IN_TAR, rows - tar * IN_TAR), 16, 16, 3), np.uint8)
            pixels[1::10] = pixels[::10]
            pixels[1::10, 0, 0] ^= 8
            for number, one in enumerate(pixels):
                name, image = f"{tar:05d}{number:04d}", io.BytesIO()
                Image.fromarray(one).save(image, "PNG", compress_level=0)
                caption = f"photo {name} of {' '.join(rng.choice(_WORDS, 7))}"
                url = json.dumps({"url": f"https://images.example.com/2026/{name}/{rng.integers(1 << 62):x}.jpg"})
                for suffix, data in (("png", image.getvalue()), ("txt", caption.encode()), ("json", url.encode())):
                    member = tarfile.TarInfo(f"{name}.{suffix}")
                    member.size = len(data)
                    file.addfile(member, io.BytesIO(data))
    recipe = {
        "input": {"name": "pool", "format": "webdataset", "path": f"{folder}/pool/*.tar"},
        "measure": {"image": {"phash": True}},
        "dedup": {"by": ["uid", "sha256", {"phash": {"distance": 4}}]},
        "max_failed": 1,
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def tell_near(out, rows):
    """Print the bytes per row of a run in tables, and those that steps group by key and give to others."""
    tables = sum(path.stat().st_size for path in (out / "tables").rglob("*.parquet"))
    print(f"  tables: {tables / rows:.0f} bytes a row")
    totals = {"near-duplicates": [0, 0], "the rest": [0, 0]}
    for stage in csv.DictReader((out / "logs/stages.csv").open()):
        total = totals["near-duplicates" if "pass 3" in stage["stage"] else "the rest"]
        total[0] += int(stage["bytes_shuffled"])
        total[1] += int(stage["bytes_given"])
    for what, (grouped, given) in totals.items():
        print(f"  {what}: {grouped / rows:.0f} bytes a row grouped by key, {given / rows:.0f} given to other steps")


def measure(place, words):
    """Run the recipe of a folder in a process of its own."""
    out = place / f"run{len(words)}"
    began = time.monotonic()
    command = [sys.executable, "-m", __spec__.name, "--folder", str(place), "--out", str(out), "--", *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    watch = Watch(process.pid)
    watch.start()
    if process.wait():
        raise SystemExit(f"a run ended with status {process.returncode}")
    watch.join()
    seconds = time.monotonic() - began
    besides, shuffled = [], 0
    if (path := out / "logs/stages.csv").exists():
        for stage in csv.DictReader(path.open()):
            shuffled += int(stage["bytes_shuffled"])
            if tasks := int(stage["tasks"]):
                at_once = min(tasks, len(os.sched_getaffinity(0)))
                besides.append(float(stage["seconds"]) - float(stage["seconds_in_bundles"]) / at_once)
    return Took(seconds, watch.cpu, watch.memory, besides, shuffled)


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, nargs="+", default=[16, 1000, 16000])
    parser.add_argument("--master", default="local[2]")
    parser.add_argument("--seconds", type=int, metavar="UNITS")
    parser.add_argument("--near", type=int, metavar="ROWS")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        recipe = load_recipe(f"{options.folder}/recipe.yaml")
        prepared = prepare(recipe, options.out, unit_size=ROWS, options=options.words)  # bytes, where there are tars
        with claimed(prepared):
            run(prepared)
        return
    spark = ["--runner=spark", f"--spark_master_url={options.master}", "--spark_conf=spark.ui.enabled=false"]
    if options.seconds:
        with tempfile.TemporaryDirectory() as folder:
            place = write_seconds(Path(folder), options.seconds)
            here, there = measure(place, []), measure(place, spark)
        print(
            f"{options.seconds} units, CPU: local {here.cpu:.1f} s, {options.master} {there.cpu:.1f} s: {there.cpu / here.cpu:.3f} x"
        )
        print(f"wall: {here.seconds:.1f} and {there.seconds:.1f} s; {here.cpu / options.seconds:.2f} s of CPU a unit")
        return
    if options.near:
        with tempfile.TemporaryDirectory() as folder:
            took = measure(place := write_near(Path(folder), options.near), spark)
            print(
                f"{options.near:,} rows: {took.seconds:.1f} s, {took.cpu:.1f} s of CPU, driver {took.memory / 1e6:.0f} MB"
            )
            tell_near(place / f"run{len(spark)}", options.near)
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for units in options.units:
            place = write_recipe(Path(folder), units, "text")
            here, there = measure(place, []), measure(place, spark)
            found.append((units, statistics.mean(there.besides)))
            print(f"{units:,} units of {ROWS} rows")
            for name, took in (("local", here), (options.master, there)):
                print(
                    f"  {name:10} {took.seconds:7.1f} s, {took.cpu:7.1f} s of CPU, driver {took.memory / 1e6:6.0f} MB"
                )
            print(
                f"  {len(there.besides)} stages, {there.shuffled:,} bytes shuffled; besides its bundles a stage takes "
                f"{statistics.median(there.besides):.3f} s (median), {found[-1][1]:.3f} s (mean)",
                flush=True,
            )
    (few, before), (many, after) = found[0], found[-1]
    if many > few:
        print(f"a unit more: {1000 * (after - before) / (many - few):.3f} ms a stage")


if __name__ == "__main__":
    main()
