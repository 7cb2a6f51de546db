"""Whether a run gives the same bytes every time on a loaded machine: whole runs of one plan, beside busy loops.

    python -m tests.bench.bench_repeat [--runs 20] [--each 10] [--loops 2] [--options BEAM OPTIONS]

Half the runs are of text (a top rule, uids, balance by a target), half of images (hashes, balance by a t); each goes into a
fresh folder, `--each` of them one after another in a process. Prints how many different outputs there were, of all files
but those that hold times, and how many runs failed; exit status 1 unless there is one output and no failure.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from curate.base import ids
from pipelines.claim import claimed
from pipelines.driver import run
from pipelines.prepare import prepare
from tests import kit

_UNIT = {"text": 100, "images": 1}  # rows; bytes: each tar is a unit
RECIPES = {
    "text": {
        "rules": {"words": "words > 2", "aligned": {"top": 0.8, "of": "clip_score"}},
        "dedup": {"by": ["uid"]},
        "balance": {"rows": 1000},
        "output": {"rows_per_shard": 200},
    },
    "images": {
        "measure": {"image": {"phash": True}},
        "rules": {"words": "words > 2"},
        "dedup": {"by": ["uid", "sha256", "phash"]},
        "balance": {"t": 10},
        "output": {"rows_per_shard": 30},
    },
}


def write_pools(folder):
    """Write both pools and the metadata: text of some 40 units, images of 24."""
    kit.write_parquets(folder / "text", kit.make_rows(3200), 8, group=100)
    kit.write_tars(folder / "images", kit.make_samples(200), 24)
    kit.write_metadata(folder)


def run_one(folder, name, options):
    """Return what a run published, by path a digest, and its counts; or its error."""
    path, form = (f"{folder}/text/*.parquet", "parquet") if name == "text" else (f"{folder}/images/*.tar", "webdataset")
    match = {"metadata": str(folder / "metadata.json")}
    recipe = kit.recipe_of(path, form, match=match, **RECIPES[name])
    with tempfile.TemporaryDirectory(dir=folder) as out:
        try:
            prepared = prepare(recipe, f"{out}/run", options=options, unit_size=_UNIT[name])
            with claimed(prepared):
                run(prepared)
        except Exception as error:  # whatever it is, it is counted
            return {"error": f"{type(error).__name__}: {error}"}
        finished = kit.Ran(Path(out) / "run")
        return {**kit.lasting_files(finished.folder), "counts": ids.digest(finished.counts)}


@contextmanager
def busy(loops):
    """Keep as many cores busy while the block runs."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--each", type=int, default=10, help="runs of a process")
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--recipe", choices=list(RECIPES), help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    if options.folder:
        for _ in range(options.each):
            print(json.dumps(run_one(options.folder, options.recipe, options.options)), flush=True)
        return
    is_same = True
    with tempfile.TemporaryDirectory() as name, busy(options.loops):
        folder = Path(name)
        write_pools(folder)
        for recipe in RECIPES:
            begun = time.monotonic()
            found = []
            while (left := options.runs // len(RECIPES) - len(found)) > 0:
                found += _in_a_process(folder, recipe, min(options.each, left), options.options)
            is_same &= _report(recipe, found, time.monotonic() - begun)
    sys.exit(not is_same)


def _in_a_process(folder, recipe, runs, options):
    """Return what each of some runs gave; those that the process did not live to tell of failed."""
    given = ["--folder", str(folder), "--recipe", recipe, "--each", str(runs), "--options", *options]
    process = subprocess.run(
        [sys.executable, "-m", __spec__.name, *given], check=False, stdout=subprocess.PIPE, text=True
    )
    for left in folder.glob("tmp*"):
        rmtree(left)
    found = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    return found + [{"error": f"exit status {process.returncode}"}] * (runs - len(found))


def _report(recipe, found, seconds):
    """Print how often runs gave the same, and return whether all did."""
    outputs = Counter(ids.digest(files) for files in found if "error" not in files)
    errors = Counter(files["error"] for files in found if "error" in files)
    print(
        f"{recipe}: {len(found)} runs in {seconds:.0f} s, {len(outputs)} different outputs, {errors.total()} failed",
        flush=True,
    )
    for error, times in errors.items():
        print(f"  {times} ×: {error}")
    finished = [files for files in found if "error" not in files]
    for path in sorted({path for files in finished for path in files}):
        if len({files.get(path) for files in finished}) > 1:
            print(f"  {path} differs")
    return len(outputs) == 1 and not errors


if __name__ == "__main__":
    main()
