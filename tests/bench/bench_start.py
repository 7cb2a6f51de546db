"""What commands cost before and after their work: CPU and wall seconds of each, here and in another checkout, in turn.

    python -m tests.bench.bench_start --before FOLDER [--metadata FILE] [--repeat 5]

The run is of 1,000 rows of text with the metadata (a list of 400,000 made-up entries where none is given), so nearly all of it is
start and end; of it the parts are shown too. Caches are warm, as after an installation: compiled modules and kernels are there.
`--before` is a checkout to compare with: ratios are of the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from tests.bench.bench_text import write_pool

HERE = Path(__file__).resolve().parents[2]


def environment(checkout, scratch):
    """The environment of a command: a checkout's modules and kernels are compiled once, and kept in `scratch`."""
    caches = scratch / checkout.as_posix().replace("/", "_")
    env = os.environ | {
        "PYTHONPATH": str(checkout),
        "NUMBA_CACHE_DIR": str(caches),
        "PYTHONPYCACHEPREFIX": str(caches / "modules"),
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def time_command(checkout, scratch, *arguments):
    """CPU and wall seconds of a command in a process of its own."""
    command = [sys.executable, "-m", "curate", *arguments]
    quiet = subprocess.DEVNULL
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=checkout, env=environment(checkout, scratch), stdout=quiet, stderr=quiet)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (checkout, arguments)
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began


def time_parts(checkout, scratch, *arguments):
    """CPU seconds of each part of a run."""
    command = [sys.executable, str(HERE / "tests/bench/start_parts.py"), *arguments]
    env = environment(checkout, scratch)
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stderr.splitlines()[-1]))


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--metadata", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    checkouts = [HERE] if options.before is None else [options.before.resolve(), HERE]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        metadata = options.metadata or scratch / "metadata.json"
        if options.metadata is None:
            metadata.write_text(json.dumps([f"entry {n:x}" for n in range(400_000)]))
        write_pool(scratch / "pool", pa.array([f"a photo of entry {n:x} by the sea" for n in range(1000)]), 1000)
        recipe = scratch / "recipe.yaml"
        recipe.write_text(
            f"input: [{{name: pool, format: parquet, path: '{scratch}/pool/*.parquet'}}]\n"
            f"match: {{metadata: {metadata.resolve()}}}\nrules: {{words: words > 2}}\nbalance: {{t: 20}}\n"
        )
        run = str(scratch / "run")
        seconds = {}
        parts = {checkout: [] for checkout in checkouts}
        commands = {
            "--help": ["--help"],
            "run": ["run", str(recipe), "--out"],
            "plan": ["plan", str(recipe)],
            "sql": ["sql", run, "funnel"],
            "verify": ["verify", run],
            "whatif": ["whatif", run, "--set", "balance.t=10"],
            "report": ["report", run],
        }
        time_command(HERE, scratch, "run", str(recipe), "--out", run)
        for attempt in range(options.repeat + 1):  # the first one compiles
            for name, words in commands.items():
                for checkout in checkouts:
                    out = [f"{scratch}/{checkout.name}{attempt}"] if name == "run" else []
                    seconds.setdefault((name, checkout), []).append(time_command(checkout, scratch, *words, *out))
                    if name == "run":
                        parts[checkout].append(time_parts(checkout, scratch, *words, f"{out[0]} parts"))
        print("CPU, wall")
        for name in commands:
            runs = [zip(*seconds[name, checkout][1:], strict=True) for checkout in checkouts]
            print(f"{name:16}", *map(compare, zip(*runs, strict=True)))
        print("parts of run: CPU, share")
        whole = sum(statistics.median(one[part] for one in parts[HERE][1:]) for part in parts[HERE][0])
        for part in parts[HERE][0]:
            found = [[one.get(part, 0.0) for one in parts[checkout][1:]] for checkout in checkouts]
            print(f"{part:16}", compare(found), f"{statistics.median(found[-1]) / whole:5.0%}")


def compare(measured):
    """The median of each checkout, and of two their ratio."""
    found = [statistics.median(values) for values in measured]
    ratio = f" {found[0] / found[1]:5.2f} x" if len(found) > 1 and found[1] else ""
    return "".join(f" {value:6.2f} s" for value in found) + ratio


if __name__ == "__main__":
    main()
