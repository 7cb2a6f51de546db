"""What commands cost before and after their work: CPU seconds of each, here and in another checkout, in turn.

    python -m tests.bench.bench_start --before FOLDER [--metadata FILE] [--repeat 5]

The run is of 1,000 rows of text with the metadata (a list of 400,000 made-up entries where none is given), so nearly all of it is
start and end. `--before` is a checkout to compare with: ratios are of the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa

from tests.bench.bench_text import write_pool

HERE = Path(__file__).resolve().parents[2]


def cpu_seconds(checkout: Path, scratch: Path, *arguments: str) -> float:
    """CPU seconds of a command in a process of its own."""
    env = os.environ | {
        "PYTHONPATH": str(checkout),
        "NUMBA_CACHE_DIR": str(scratch / checkout.as_posix().replace("/", "_")),
    }
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", "curate.cli.main", *arguments], cwd=checkout, env=env, stdout=quiet, stderr=quiet
    )
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (checkout, arguments)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
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
        seconds: dict[tuple[str, Path], list[float]] = {}
        commands = {
            "--help": ["--help"],
            "run": ["run", str(recipe), "--out"],
            "plan": ["plan", str(recipe)],
            "sql": ["sql", run, "funnel"],
            "verify": ["verify", run],
            "whatif": ["whatif", run, "--set", "balance.t=10"],
            "report": ["report", run],
        }
        cpu_seconds(HERE, scratch, "run", str(recipe), "--out", run)
        for attempt in range(options.repeat + 1):  # the first one compiles
            for name, words in commands.items():
                for checkout in checkouts:
                    out = [f"{scratch}/{checkout.name}{attempt}"] if name == "run" else []
                    seconds.setdefault((name, checkout), []).append(cpu_seconds(checkout, scratch, *words, *out))
        for name in commands:
            found = [statistics.median(seconds[name, checkout][1:]) for checkout in checkouts]
            ratio = f"  {found[0] / found[-1]:5.2f} x" if len(found) > 1 else ""
            print(f"{name:8}" + "".join(f" {value:6.2f} s" for value in found) + ratio)


if __name__ == "__main__":
    main()
