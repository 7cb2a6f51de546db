"""CLIP scoring end to end against clip-retrieval's inference: the same pool, model, weights and cores, fp32.

    python -m tests.bench.bench_clip_retrieval --photos photos.tar --python VENV/bin/python [--captions FILE.parquet]

VENV is an environment of its own with `clip-retrieval` and `setuptools<80`; without one the measurement is skipped, with
a word. Weights are random: speed does not depend on them. Each side is one process that loads the model and does the
pool once before anything counts; then they take turns. A turn's wall seconds count, and the CPU seconds of the process
and of its workers. `others` is how many cores the rest of the machine kept busy meanwhile: ratios are worth little
where it is not near 0.

clip-retrieval is given the best of several batches and numbers of workers, and its process of statistics is left out.
Both write both embeddings of every pair; curate also checks and hashes the images, scores, and writes its tables.
curate cuts texts to the longest of their batch, so that the ratio hangs on how long captions are: `--captions` takes
column TEXT of a file in place of the photos' own, which are short. Linux only.
"""

import argparse
import io
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tests import kit
from tests.bench.bench_clip import job_of, make_weights

TARS = 4  # a worker of clip-retrieval needs one of its own
DEFAULTS = (256, 4)  # clip-retrieval's batch and workers
SETTINGS = [(batch, workers) for batch in (8, 32, 64) for workers in (1, 2)] + [(32, 0), DEFAULTS]
AGREE = 0.999
OURS = "import sys; from tests.bench.bench_clip_retrieval import serve; serve(*sys.argv[1:])"
# The worker as clip-retrieval's own distributor calls it; a path in place of a checkpoint's name is open_clip's to read.
THEIRS = """
import json, os, resource, sys, time
from clip_retrieval.clip_inference import worker as module

class NoStatistics:
    def __init__(self, partition_id, stats_folder): pass
    def __call__(self, stats): pass
    def start(self): pass
    def end(self): pass

def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

module.LoggerWriter = NoStatistics
model, weights, pool = sys.argv[1:]
options = {"clip_model": "open_clip:" + model + "/" + weights, "use_jit": False}
tars = sorted(os.path.join(pool, name) for name in os.listdir(pool))
for line in sys.stdin:
    out, batch, workers = json.loads(line)
    module.load_clip(**options, warmup_batch_size=batch, clip_cache_path=None)
    began, spent = time.perf_counter(), cpu()
    module.worker([0], tars, out, 1, input_format="webdataset", batch_size=batch, num_prepro_workers=workers, **options)
    print(json.dumps([time.perf_counter() - began, cpu() - spent, cpu()]), flush=True)
"""


@dataclass(frozen=True)
class Run:
    """Wall and CPU seconds of one turn, and the cores that others kept busy."""

    wall: float
    cpu: float
    others: float


def write_pool(photos, captions, folder, copies):
    """The photos, several times under other keys, dealt to tars; how many. Captions, where given, replace their own."""
    folder.mkdir()
    texts = itertools.cycle(captions)
    with tarfile.open(photos) as source:
        members = [(m.name, (source.extractfile(m) or io.BytesIO()).read()) for m in source]
    keys = list(dict.fromkeys(name.partition(".")[0] for name, _ in members))
    for number in range(TARS):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for copy, (name, data) in itertools.product(range(copies), members):
                if keys.index(name.partition(".")[0]) % TARS == number:
                    content = next(texts).encode() if captions and name.endswith(".txt") else data
                    info = tarfile.TarInfo(f"{copy}_{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return copies * len(keys)


def cpu_seconds():
    """Of this process."""
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def serve(model, weights, pool):
    """Measures the pool into the folder that each line of input names, and prints wall and CPU seconds, and all of its CPU seconds."""
    for line in sys.stdin:
        (out,) = json.loads(line)
        options = {"device": "cpu", "precision": "fp32", "embeddings": True}
        context, units = job_of(model, Path(weights), Path(pool) / "*.tar", Path(out) / "run", **options)
        began, spent = time.perf_counter(), cpu_seconds()
        for unit in units:
            kit.measure(context, unit)
        print(json.dumps([time.perf_counter() - began, cpu_seconds() - spent, cpu_seconds()]), flush=True)


def busy():
    """CPU seconds of the whole machine since it started."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


class Side:
    """A process that runs when told."""

    def __init__(self, python, code, given):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([python, "-c", code, *given], env=environment, text=True, **pipes)
        self._spent = 0.0

    def run(self, out, *setting):
        """One turn, its results in `out`. Raises RuntimeError where the process dies."""
        assert self._process.stdin and self._process.stdout
        before, began = busy(), time.perf_counter()
        self._process.stdin.write(json.dumps([str(out), *setting]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("["):
                wall, cpu, total = json.loads(line)
                own, self._spent = total - self._spent, total
                return Run(wall, cpu, max(0.0, busy() - before - own) / (time.perf_counter() - began))
        raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")

    def end(self):
        """Ends it."""
        self._process.kill()
        self._process.wait()


Embeddings = dict[str, npt.NDArray[np.float32]]


def our_embeddings(out):
    """Keys and embeddings of a run of ours."""
    tables = out / "run" / "tables"
    samples, embeddings = (
        pq.read_table(sorted((tables / name).glob("*.parquet"))) for name in ("samples", "embeddings")
    )
    sides = {side: np.array(embeddings[side].to_pylist(), np.float32) for side in ("image", "text")}
    return samples["key"].to_pylist(), sides


def their_embeddings(out):
    """Keys and embeddings of a run of theirs."""
    keys = pq.read_table(out / "metadata" / "metadata_0.parquet")["image_path"].to_pylist()
    files = {"image": "img_emb", "text": "text_emb"}
    return keys, {side: np.load(out / name / f"{name}_0.npy").astype(np.float32) for side, name in files.items()}


def compare(mine, theirs):
    """Prints how near embeddings of the two are. Raises SystemExit where they are not the same pairs or embeddings."""
    (keys, ours), (their_keys, others) = our_embeddings(mine), their_embeddings(theirs)
    place = {key: row for row, key in enumerate(keys)}
    if len(place) != len(keys) or sorted(keys) != sorted(their_keys):
        raise SystemExit(f"not the same pairs: {len(keys)} and {len(their_keys)}")
    for side in ours:
        a, b = ours[side][[place[key] for key in their_keys]], others[side]
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        least, apart = (a * b).sum(1).min(), np.median((a * np.roll(b, 1, axis=0)).sum(1))
        print(f"  {side} embeddings: cosine of ours and theirs at least {least:.6f}, of neighbours {apart:.3f}")
        if not least >= AGREE:
            raise SystemExit("not the same embeddings: the comparison means nothing")


def report(name, pairs, run):
    """One line."""
    rate = f"{pairs / run.wall:5.1f} pairs/s"
    print(f"  {name:<38} wall {run.wall:6.2f}  cpu {run.cpu:6.2f}  {rate}  others {run.others:.2f}", flush=True)


def listed(ratios):
    """The median, and each."""
    return f"{statistics.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})"


def measure(ours, theirs, here, pairs, rounds):
    """Prints all turns and the ratios."""
    places = (here / f"out{number}" for number in itertools.count())
    ours.run(next(places))
    theirs.run(next(places), *DEFAULTS)
    tried = {}
    for setting in SETTINGS:
        tried[setting] = theirs.run(next(places), *setting)
        report("clip-retrieval, batch {}, workers {}".format(*setting), pairs, tried[setting])
    best = min(tried, key=lambda setting: tried[setting].wall)
    turns = {
        "curate": ours.run,
        "clip-retrieval, best": lambda out: theirs.run(out, *best),
        "clip-retrieval, defaults": lambda out: theirs.run(out, *DEFAULTS),
    }
    found = {name: [] for name in turns}
    last = {}
    for number in range(rounds):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            last[name] = next(places)
            found[name].append(turns[name](last[name]))
            report(f"round {number + 1}: {name}", pairs, found[name][-1])
    mine = found.pop("curate")
    for name, runs in found.items():
        wall = listed([theirs.wall / ours.wall for ours, theirs in zip(mine, runs, strict=True)])
        cpu = listed([theirs.cpu / ours.cpu for ours, theirs in zip(mine, runs, strict=True)])
        print(f"  pairs/s, curate to {name}: {wall}; a CPU second: {cpu}")
        compare(last["curate"], last[name])


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--python", default=sys.executable, help="one that has clip-retrieval")
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    probe = [options.python, "-c", "import clip_retrieval"]
    if shutil.which(options.python) is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        print(f"skipped: {options.python} has no clip-retrieval")
        return
    with tempfile.TemporaryDirectory() as folder:
        pool, weights = Path(folder) / "pool", Path(folder) / "weights.safetensors"
        captions = [t for t in pq.read_table(options.captions)["TEXT"].to_pylist() if t] if options.captions else []
        pairs = write_pool(options.photos, captions, pool, options.copies)
        make_weights(options.model, weights)
        print(f"{options.model}, {pairs} pairs, {os.cpu_count()} cores, fp32")
        start = partial(Side, given=[options.model, str(weights), str(pool)])
        ours, theirs = start(sys.executable, OURS), start(options.python, THEIRS)
        try:
            measure(ours, theirs, Path(folder), pairs, options.rounds)
        finally:
            ours.end()
            theirs.end()


if __name__ == "__main__":
    main()
