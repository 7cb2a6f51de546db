"""What `curate plan` says that a run costs, and what it costs: CPU by step, wall, bytes, and how many intervals held the truth.

    python -m tests.bench.bench_costs --captions FILE.parquet --column TEXT --metadata FILE [--rows 1000000 10000000] [--repeat 3]
    python -m tests.bench.bench_costs --tars 20 [--of 500] [--side 256] [--clip ViT-S-32-alt] [--measure 1000]
    … --on FILE                      on an engine, whose CPU is that of all its processes

`--clip` names a model of open_clip, which has random weights. Each plan measures `--measure` rows of the pool, in a process of its own, as each run does. Wall says something on a quiet machine alone.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.bench.bench_spark import Watch

GROUP = 20_000  # rows of a row group
OF = {"cpu": 1.0, "shuffled": 1e6, "stored": 1e6}  # what is compared, in seconds and MB


def write_text(folder, captions, rows):
    """Parquet files of distinct captions and URLs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, first in enumerate(range(0, rows, 1_000_000)):
        count = min(1_000_000, rows - first)
        numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
        texts = captions.take(pa.array(rng.integers(0, len(captions), count))).fill_null("")
        texts = pc.binary_join_element_wise(texts, numbers.cast(texts.type), " ")
        urls = pc.binary_join_element_wise("https://example.com/images/", numbers, ".jpg", "")
        pq.write_table(
            pa.table({"url": urls, "caption": texts}), folder / f"{number:05d}.parquet", row_group_size=GROUP
        )


def predict(recipe, measure, on):
    """Print what the plan says, as JSON: of each step and resource value, low and high."""
    from curate.ask.costs.model import add_up
    from curate.ask.costs.prices import load_prices
    from curate.recipe.recipe import load_recipe
    from pipelines.prepare import prepare
    from pipelines.trial import find_trials, plan_costs

    prepared = prepare(load_recipe(recipe), f"{recipe}.none", on=on)
    trials = find_trials(prepared, measure)
    from curate.ask.whatif.estimate import estimate

    expected = estimate(prepared.context, prepared.plan.units, prepared.metadata, prepared.record)
    assert trials and expected
    plan = plan_costs(prepared, trials, expected, None, load_prices())
    said = {"seconds": plan.seconds}
    for kind in OF:
        steps = {cost.step for cost in plan.costs if cost.kind == kind and cost.step != "idle"}
        said[kind] = {step: plan.sum(kind, step) for step in steps}
        some = [cost for cost in plan.costs if cost.kind == kind and cost.step != "idle"]
        said[kind]["all"] = add_up(some)
    print(json.dumps(said))


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions")
    parser.add_argument("--column", default="TEXT")
    parser.add_argument("--metadata")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--tars", type=int)
    parser.add_argument("--of", type=int, default=500)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--clip")
    parser.add_argument("--measure", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--on")
    parser.add_argument("--predict", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        predict(options.predict, options.measure, options.on)
        return
    with tempfile.TemporaryDirectory() as folder:
        here, recipes = Path(folder), {}
        if options.tars:
            from tests.bench.bench_emit import make_pool

            (here / "pool").mkdir()
            for number, tar in enumerate(make_pool(here, options.tars, options.of, options.side, options.side)):
                os.link(tar, here / f"pool/{number:05d}.tar")
            source = {"name": "pool", "format": "webdataset", "path": f"{here}/pool/*.tar"}
            measure = {"image": {"phash": True}}
            if options.clip:
                from tests.bench.bench_clip import make_weights

                make_weights(options.clip, here / "weights.safetensors")
                measure["clip"] = {"model": options.clip, "pretrained": f"{here}/weights.safetensors"}
            rules = {"side": "min_side > 100"}
            recipes[options.tars * options.of] = {"input": source, "measure": measure, "rules": rules}
        else:
            captions = pq.read_table(options.captions, columns=[options.column])[options.column].combine_chunks()
            for rows in options.rows:
                write_text(here / f"pool{rows}", captions, rows)
                source = {"name": "pool", "format": "parquet", "path": f"{here}/pool{rows}/*.parquet"}
                metadata = {"metadata": str(Path(options.metadata).resolve())}
                recipes[rows] = {
                    "input": source,
                    "match": metadata,
                    "rules": {"words": "words > 2"},
                    "balance": {"t": 2000},
                }
        held = {}
        for rows, recipe in recipes.items():
            (here / f"{rows}.yaml").write_text(json.dumps(recipe))
            for _ in range(options.repeat):
                compare(str(here / f"{rows}.yaml"), rows, options, held)
    print("intervals that held the truth:")
    for name, all_of in held.items():
        print(f"  {name:24} {sum(all_of)} of {len(all_of)}")


def compare(recipe, rows, options, held):
    """Plan, run, and print both."""
    on = ["--on", options.on] if options.on else []
    words = ["--predict", recipe, "--measure", str(options.measure), *on]
    answer = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_costs", *words], capture_output=True, text=True, check=True
    )
    said = json.loads(answer.stdout.splitlines()[-1])
    out, began = f"{recipe}.run", time.monotonic()
    command = [sys.executable, "-m", "curate", "run", recipe, "--out", out, *on]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watch = Watch(process.pid)
    watch.start()
    assert process.wait() == 0
    seconds = time.monotonic() - began
    watch.join()
    used = {step["step"]: step for step in json.loads(Path(out, "run.json").read_text())["used"]}
    shutil.rmtree(out)
    print(f"{rows:,} rows, planned from {options.measure:,}; load {os.getloadavg()[0]:.1f}")
    for kind, unit in OF.items():
        truth = {step: of[kind] for step, of in used.items()}
        truth["all"] = watch.cpu if kind == "cpu" else sum(truth.values())
        for step in [*used, "all"]:
            value, low, high = said[kind].get(step, (0.0, 0.0, 0.0))
            if value or truth[step]:
                is_held = low <= truth[step] <= high
                held.setdefault(f"{kind} {'all' if step == 'all' else 'of steps'}", []).append(is_held)
                show(f"{kind} {step}", value / unit, low / unit, high / unit, truth[step] / unit, is_held)
    if said["seconds"]:
        value, low, high = said["seconds"]
        held.setdefault("wall", []).append(low <= seconds <= high)
        show("wall", value, low, high, seconds, held["wall"][-1])


def show(name, value, low, high, truth, is_held):
    """Print one comparison."""
    by = f"{value / truth - 1:+.0%}" if truth else ""
    print(
        f"  {name:20} {value:9.2f} [{low:9.2f}, {high:9.2f}]  truth {truth:9.2f}  {by:>6}{'' if is_held else '  NOT HELD'}"
    )


if __name__ == "__main__":
    main()
