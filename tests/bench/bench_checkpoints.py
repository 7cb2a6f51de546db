"""What a unit of ten tars holds in memory, and what its checkpoints cost: none, one a minute's work, one a step.

    python -m tests.bench.bench_checkpoints [--rows 10000] [--tars 10] [--repeat 1]

The unit has embeddings of 512 dimensions, that a signal makes up in no time: what remains is reading, decoding small images and
tables. Each measurement is a process of its own. `every step` writes a checkpoint for each 512 rows; `at 18 images/s`
one for each 1,080, which is a minute's work of a slow model; `killed` is ended before the last tar, and its second half is what a rerun costs.
"""

import argparse
import io
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curate.base.numeric.vectors import embedding_column
from curate.measure import part
from curate.measure.settings import MeasureSettings
from curate.measure.unit import measure_unit
from curate.recipe.recipe import parse_recipe
from curate.signals.signal import ModelSignal, SignalOutput
from curate.store import checkpoints
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests.kit import Sample, write_tar

DIMENSION = 512
MODES = {"none": 1 << 30, "at 18 images/s": 1080, "every step": 1, "killed": 1080}  # rows between two checkpoints


class Embedder:
    """An image signal with embeddings of 512 dimensions."""

    def __init__(self, captions):
        self._rows = []
        self._number = len(captions)

    def observe(self, image):
        return image.width

    def add(self, row, observation):
        self._rows.append(row)

    def finish(self):
        rows = np.array(self._rows, np.int64)
        values = np.random.default_rng(len(rows)).random((len(rows), DIMENSION), np.float32)
        column = embedding_column(values, rows, self._number)
        return SignalOutput((), (column, column))


def write_pool(folder, tars, rows):
    """Write tars of small images; they are alike, which nothing here notices."""
    folder.mkdir()
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(out, "JPEG")
    samples = (Sample(f"{i:09d}", out.getvalue(), f"a photo of the number {i}") for i in range(rows))
    first = write_tar(folder / "00000.tar", samples)
    for number in range(1, tars):
        shutil.copy(first, folder / f"{number:05d}.tar")


def measure(pool, out, every, stop):
    """Measure the only unit, with a checkpoint after `every` rows; end the process before row `stop` is observed."""
    clock = [0.0]
    checkpoints.INTERVAL = float(every)
    checkpoints.time = type("Clock", (), {"monotonic": staticmethod(lambda: clock[0])})()  # type: ignore[assignment]
    measure_images = part.measure_images

    def counting(images, captions, *others):
        found = measure_images(images, captions, *others)
        clock[0] += len(captions)
        if clock[0] >= stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    part.measure_images = counting
    clip = {"embeddings": [], "image": {"phash": False}}
    source = {"name": "pool", "format": "webdataset", "path": f"{pool}/*.tar"}
    prepared = prepare(parse_recipe({"input": [source], "measure": clip}), str(out), unit_size=1 << 40)
    claim_folder(prepared)
    settings = MeasureSettings.of(prepared.context)
    one = ModelSignal("clip", (), "made up", start=Embedder, dimension=DIMENSION, encoder=lambda is_anywhere: None)
    kept = type("Kept", (), {"name": "clip"})()
    settings = replace(settings, signals=(one,), tables=("samples", "scores", "embeddings", "members"))
    object.__setattr__(settings, "measure", type("Measure", (), {"kept": [kept], "image": settings.measure.image})())
    kinds = [pa.field(side, pa.list_(pa.float16(), DIMENSION)) for side in ("image", "text")]
    fields = [pa.field(n, k) for n, k in (("unit", pa.int32()), ("row", pa.int32()), ("uid", pa.string()))]
    settings.__dict__["embedding_schema"] = pa.schema([*fields, *kinds])
    assert len(prepared.plan.units) == 1
    measure_unit(settings, prepared.plan.units[0], prepared.context.unit_tables(prepared.plan.units[0]))


def timed(folder, name, mode, stop):
    """Return CPU seconds and peak bytes of a process that measures."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = ["--folder", str(folder), "--mode", mode, "--stop", str(stop), "--name", name]
    process = subprocess.Popen([sys.executable, "-m", __spec__.name, *arguments])
    _, _, usage = os.wait4(process.pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, usage.ru_maxrss * 1024


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--tars", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=1)
    for name in ("--folder", "--mode", "--name"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=int, default=1 << 40, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure(Path(options.folder) / "pool", Path(options.folder) / options.name, MODES[options.mode], options.stop)
        return
    found = {}
    never, last = 1 << 40, options.rows * (options.tars - 1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pool(folder / "pool", options.tars, options.rows)
        timed(folder, "nothing", "none", 1)  # compiles, and fills the caches
        for number in range(options.repeat):
            for mode in MODES:
                name = f"{mode}-{number}".replace("/", " ").replace(" ", "-")
                if mode == "killed":
                    timed(folder, name, mode, last)
                found.setdefault(mode, []).append(timed(folder, name, mode, never))
                shutil.rmtree(folder / name)
        start = timed(folder, "start", "none", 1)
    print(
        f"{options.tars} tars of {options.rows:,} rows; without the start, {start[0]:.1f} s and {start[1] / 1e6:.0f} MB:"
    )
    for mode, runs in found.items():
        cpu, peak = (statistics.median(column) for column in zip(*runs, strict=True))
        of_none = statistics.median(one[0] - start[0] for one in found["none"])
        ratio = (cpu - start[0]) / of_none
        print(
            f"{mode:16} {cpu - start[0]:6.1f} s of CPU ({ratio:.2f} of none), peak + {(peak - start[1]) / 1e6:5.0f} MB"
        )


if __name__ == "__main__":
    main()
