"""A campaign: the largest pools that this machine holds, end to end on each engine, and how what they cost grew from a tenth.

    python -m tests.bench.bench_campaign FOLDER [--rows 50000000] [--gigabytes 10] [--engines local spark]
    python -m tests.bench.bench_campaign FOLDER --table

Pools are those of `campaign_pools`: text in Parquet, and tars, of which a run keeps a fifth. Each is made at a tenth of its size
and at full size, in FOLDER. Each run is a `curate run` of its own, on the local engine, then on a standalone Spark cluster on
the loopback: a master and two workers of a core, which this starts and stops. A small first run compiles what numba
compiles, and is not counted.

Figures go to FOLDER/figures.json after each run, and the run is deleted before the next one begins, as is a pool after its last
run. Called again with the same sizes, after a kill too, it goes on with the first run that has no figures there; what a
killed campaign left running is ended first. Before a pool is made it is checked that the disk holds it and its largest run.

A run's figures, of which `--table` prints both sizes, their ratio, and what a line through both gives for a hundred times the
full size ("!" where a figure grew more than the pool):

- wall seconds; CPU seconds of all processes, and of each kind of them;
- seconds by step that the run itself states: of `steps` wall in threads, of `used` (where run.json has it) CPU;
- peak memory of a kind's largest process: `peak` is the kernel's high-water mark, `own` leaves out pages of files;
- of Spark bytes that were grouped by key, bytes that stages gave to others, stages and tasks, and the seconds of stages of
  one task, which no machine more makes faster;
- units, files and bytes of the run, and the disk that it needed at most.

Runs are of this checkout, which must not change meanwhile. CPU, memory, bytes and files may be compared on a machine that
does other work besides; seconds may not.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.campaign_pools import SAMPLE_BYTES, write_tars, write_text
from tests.runners.clusters import standalone

CHECKOUT = Path(__file__).resolve().parents[2]
_MARK = "CURATE_CAMPAIGN"  # a variable of the environment of all that a campaign starts: its folder
_EVERY = 0.25  # seconds between two looks at the processes
_HUNDRED = 100
Figures = dict[str, float]


@dataclass(frozen=True)
class Kind:
    """A kind of pool, and the bytes of disk that a row of it needs: in the pool, and at most while a run is made."""

    write: Callable[[Path, Path, int], dict[str, object]]
    pool_bytes: float
    run_bytes: float
    least: int  # rows: of fewer text rows balancing cannot keep a fifth


KINDS = {"text": Kind(write_text, 55, 270, 500_000), "tars": Kind(write_tars, SAMPLE_BYTES, 0.25 * SAMPLE_BYTES, 2_000)}
_ROLES = {  # by a word of the command line
    "deploy.master.Master": "master",
    "deploy.worker.Worker": "worker",
    "CoarseGrainedExecutorBackend": "executor's Java",
    "pyspark.daemon": "executor's Python",
    "SparkSubmit": "driver's Java",
}


# ---------------------------------------------------------------- processes
class Watch(threading.Thread):
    """Follows all processes below this one: of each kind the number, CPU seconds, and bytes of the largest process."""

    def __init__(self, driver, disk):
        super().__init__(daemon=True)
        self._driver, self._disk, self._ended = driver, disk, threading.Event()
        self._roles, self._cpu, self._first = dict[int, str](), dict[int, float](), dict[int, float]()
        self._peaks = defaultdict(lambda: {"peak": 0, "own": 0})
        self._free = self._least = shutil.disk_usage(disk).free
        self._together = 0

    def run(self):
        """Look until told to end."""
        while not self._ended.wait(_EVERY):
            own = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error, OSError, KeyError):  # it has ended
                    own += self._look(process)
            self._together = max(self._together, own)
            self._least = min(self._least, shutil.disk_usage(self._disk).free)

    def _look(self, process):
        if words := " ".join(process.cmdline()):  # none of one that has ended and is not waited for
            role = next((role for word, role in _ROLES.items() if word in words), "others")
            self._roles[process.pid] = "driver" if process.pid == self._driver else role
        role = self._roles.setdefault(process.pid, "others")
        times = process.cpu_times()
        self._cpu[process.pid] = times.user + times.system
        self._first.setdefault(process.pid, self._cpu[process.pid] if role in ("master", "worker") else 0)
        lines = (line.partition(":") for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        status = {name: int(value.split()[0]) << 10 for name, _, value in lines if name in ("VmHWM", "RssAnon")}
        peaks = self._peaks[role]
        peaks["peak"] = max(peaks["peak"], status["VmHWM"])
        peaks["own"] = max(peaks["own"], status["RssAnon"])
        return status["RssAnon"]

    def end(self):
        """Return the figures."""
        self._ended.set()
        self.join()
        figures = defaultdict(float)
        for pid, role in self._roles.items():
            cpu = self._cpu[pid] - self._first[pid]
            figures["CPU s"] += cpu
            figures[f"CPU s, {role}"] += cpu
            figures[f"processes, {role}"] += 1
        for role, peaks in self._peaks.items():
            figures |= {f"memory {what} MB, {role}": size / 1e6 for what, size in peaks.items()}
        figures["memory own MB, all together"] = self._together / 1e6
        figures["disk at most GB"] = (self._free - self._least) / 1e9
        return dict(figures)


def end_left(folder):
    """End the processes of a campaign in this folder that was killed."""
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # another user's, or it has ended
            if process.pid != os.getpid() and process.environ().get(_MARK) == str(folder):
                process.kill()
                left.append(process)
    psutil.wait_procs(left, 20)


@contextmanager
def engine_options(engine, folder):
    """Yield the options of `curate run` for an engine, which is up meanwhile."""
    if engine == "local":
        yield []
        return
    shutil.rmtree(folder / "cluster", ignore_errors=True)
    (folder / "cluster").mkdir()
    with standalone(folder / "cluster") as url:
        yield ["--", "--runner=spark", f"--spark_master_url={url}"]
    shutil.rmtree(folder / "cluster")


# ---------------------------------------------------------------- a run
def measure(recipe, out, engine):
    """Run a recipe, and return its figures; raises SystemExit with the end of its log where it fails."""
    with engine_options(engine, out.parent) as options, open(out.parent / "run.log", "w+") as log:
        command = [sys.executable, "-m", "curate", "run", str(recipe), "--out", str(out), *options]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT)
        watch = Watch(process.pid, out.parent)
        watch.start()
        try:
            status = process.wait()
        finally:
            process.kill()
        seconds, figures = time.monotonic() - began, watch.end()
    if status:
        raise SystemExit(f"{' '.join(command)}: status {status}\n{(out.parent / 'run.log').read_text()[-3000:]}")
    return {"seconds": seconds, **figures, **read_run(out)}


def read_run(out):
    """Return what a finished run states of itself, and what its files are."""
    run = json.loads((out / "run.json").read_text())
    figures = {"rows": sum(run["counts"].values()), "rows kept": run["counts"]["kept"]}
    figures |= {f"seconds of {step['step']}, wall": step["seconds"] for step in run["steps"]}
    for used in run.get("used", []):
        figures |= {
            f"{kind} of {used['step']}, used": used[kind] for kind in ("cpu", "shuffled", "stored") if used.get(kind)
        }
    figures["units"] = next(step["units"] for step in run["steps"] if step["step"] == "measure")
    if (stages := out / "logs/stages.csv").exists():
        figures |= read_stages(stages)
    sizes = defaultdict(list)
    for path in out.rglob("*"):
        if path.is_file():
            top, *rest = path.relative_to(out).parts
            sizes["/".join([top, *rest[:-1]]) if rest else "top"].append(path.stat().st_size)
    figures |= {f"MB of {name}": sum(of) / 1e6 for name, of in sizes.items()}
    figures |= {"files": sum(map(len, sizes.values())), "MB of the run": sum(map(sum, sizes.values())) / 1e6}
    return figures


def read_stages(path):
    """Return sums over a Spark run's stages, and the seconds and bytes of each that matters."""
    stages = list(csv.DictReader(path.open()))
    alone = [stage for stage in stages if int(stage["tasks"]) <= 1]
    figures = {"stages": len(stages), "tasks": sum(int(stage["tasks"]) for stage in stages)}
    figures["seconds in bundles"] = sum(float(stage["seconds_in_bundles"]) for stage in stages)
    figures["seconds of stages of one task"] = sum(float(stage["seconds"]) for stage in alone)
    for name, column in (("shuffled", "bytes_shuffled"), ("given to stages", "bytes_given")):
        figures[f"MB {name}"] = sum(int(stage[column]) for stage in stages) / 1e6
    for stage in stages:
        for what, amount, least in (
            ("s in one task", float(stage["seconds"]) if stage in alone else 0, 0.5),
            ("MB given", int(stage["bytes_given"]) / 1e6, 1),
            ("MB shuffled", int(stage["bytes_shuffled"]) / 1e6, 1),
        ):
            if amount >= least:
                name = f"stage {stage['stage'][:60]}: {what}"
                figures[name] = figures.get(name, 0) + amount
    return figures


# ---------------------------------------------------------------- the campaign
class Campaign:
    """The runs of a campaign, and the figures of those that are finished."""

    def __init__(self, folder, data):
        self._folder, self._data, self._file = folder, data, folder / "figures.json"
        self.figures = json.loads(self._file.read_text()) if self._file.exists() else {}

    def take(self, kind, rows, engines):
        """Make the runs over a pool of so many rows that have no figures."""
        wanting = [engine for engine in engines if f"{kind} {engine} {rows}" not in self.figures]
        if not wanting:
            return
        pool, recipe, out = (self._folder / name for name in ("pool", "recipe.json", "run"))
        for path in (pool, out):
            shutil.rmtree(path, ignore_errors=True)
        self._check_disk(kind, rows)
        pool.mkdir()
        print(f"{kind}: a pool of {rows:,} rows", flush=True)
        recipe.write_text(json.dumps(KINDS[kind].write(pool, self._data, rows)))
        pool_mb = sum(path.stat().st_size for path in pool.iterdir()) / 1e6
        for engine in wanting:
            figures = {"MB of the pool": pool_mb, **measure(recipe, out, engine)}
            figures["uids"] = hashlib.sha256((out / "uids.npy").read_bytes()).hexdigest()
            figures["machine"] = f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 1e9:.0f} GB"
            figures["load before"] = os.getloadavg()[2]
            self.figures[f"{kind} {engine} {rows}"] = figures
            self._file.with_suffix(".tmp").write_text(json.dumps(self.figures, indent=1))
            self._file.with_suffix(".tmp").replace(self._file)
            shutil.rmtree(out)
            print(
                f"{kind}: {rows:,} rows, {engine}: {figures['seconds']:.0f} s, {figures['CPU s']:.0f} s of CPU",
                flush=True,
            )
        shutil.rmtree(pool)
        self._check_equal(kind, rows)

    def warm(self, kind, rows, engines):
        """Run once what the first run compiles."""
        Campaign(self._folder / "warm", self._data).take(kind, rows, engines)

    def _check_disk(self, kind, rows):
        needed, free = need(kind, rows), shutil.disk_usage(self._folder).free
        what = f"{kind}, {rows:,} rows: the pool and a run of it need {needed / 1e9:.1f} GB"
        if needed > free:
            raise SystemExit(f"{what}, {self._folder} has {free / 1e9:.1f} GB free; lower --rows or --gigabytes")
        print(f"{what} of {free / 1e9:.1f} GB free", flush=True)

    def _check_equal(self, kind, rows):
        kept = {
            figures["uids"]
            for name, figures in self.figures.items()
            if name.split() == [kind, name.split()[1], str(rows)]
        }
        if len(kept) > 1:
            raise SystemExit(f"{kind}, {rows:,} rows: engines kept different rows, see {self._file}")


def need(kind, rows):
    """Return the bytes that a pool and its largest run take on a disk, and a tenth more."""
    return 1.1 * rows * (KINDS[kind].pool_bytes + KINDS[kind].run_bytes)


def tell(figures):
    """Print each pool's figures on each engine: at the smallest and at the largest size, and what follows from both."""
    sizes = defaultdict(list)
    for name in figures:
        kind, engine, rows = name.split()
        sizes[kind, engine].append(int(rows))
    for (kind, engine), of in sizes.items():
        few, many = min(of), max(of)
        before, after = figures[f"{kind} {engine} {few}"], figures[f"{kind} {engine} {many}"]
        print(f"\n## {kind}, {engine}: {few:,} and {many:,} rows, {many / few:.1f} x; {after['machine']}\n")
        print(f"| {'':84} | {few:>14,} | {many:>14,} | {'ratio':>7} | {f'{_HUNDRED} x, line':>16} |\n|{'---|' * 5}")
        for name, value in after.items():
            if isinstance(value, str):
                continue
            small = before.get(name, 0)
            ratio = f"{value / small:7.2f}" if small else f"{'':7}"
            mark = "!" if many > few and small and value / small > 1.1 * many / few else " "
            far = value + (value - small) / max(1, many - few) * (_HUNDRED - 1) * many
            print(f"| {name:84} | {small:14,.1f} | {value:14,.1f} | {ratio}{mark}| {far:16,.0f} |")


def main():
    """Make the runs that are not made, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    beside = CHECKOUT.parent / "shared/data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CURATE_SHARED_DATA", beside)))
    parser.add_argument("--rows", type=int, default=50_000_000, help="of the text pool, 5,000,000 or more; 0: none")
    parser.add_argument("--gigabytes", type=float, default=10, help="of the tars, 0.5 or more; 0: none")
    parser.add_argument("--engines", nargs="+", choices=["local", "spark"], default=["local", "spark"])
    parser.add_argument("--table", action="store_true", help="print the table of what there is, and run nothing")
    options = parser.parse_args()
    folder = options.folder.resolve()
    campaign = Campaign(folder, options.data.resolve())
    if not options.table:
        (folder / "warm").mkdir(parents=True, exist_ok=True)
        end_left(folder)
        os.environ[_MARK] = str(folder)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        for kind, rows in (("text", options.rows), ("tars", int(options.gigabytes * 1e9 / SAMPLE_BYTES))):
            if 0 < rows < 10 * KINDS[kind].least:
                raise SystemExit(f"{kind}: {rows:,} rows; accepted: at least {10 * KINDS[kind].least:,}, or 0")
            for some in (rows // 10, rows) if rows else ():
                campaign.warm(kind, KINDS[kind].least, options.engines)
                campaign.take(kind, some, options.engines)
    tell(campaign.figures)


if __name__ == "__main__":
    main()
