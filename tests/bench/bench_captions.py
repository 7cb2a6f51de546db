"""Rewrites through the whole caption step against the bare engine on the same prompts, and what grouping prompts is worth.

    python -m tests.bench.bench_captions --data FOLDER --models FOLDER [--rows 300]

FOLDER of data holds laion_urls_10k.parquet, that of models `smollm2` (`python -m tests.captions.real_models FOLDER`). Runs in an
environment with vLLM (see tests/captions/test_real.py). The bare engine is `vllm.LLM.generate` of all prompts at once; the
step makes the requests, looks them up, sends them in batches, judges the texts and writes both tables. Each of the two is
given the prompts in the order of their groups; then the bare engine once more with examples drawn anew for each prompt, as
in the paper, so that prompts share nothing but a first line. Prefixes are forgotten before each. About two minutes.
"""

import argparse
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.captions.engines import identify_engines, open_engine
from curate.captions.kinds.rewrite import load_pairs
from curate.captions.rows import Rows, make_requests
from curate.captions.settings import CaptionSettings
from curate.captions.unit import caption_unit
from curate.decide.select_rows import draw_rows
from curate.decide.settings import DecideSettings
from curate.recipe.recipe import parse_recipe
from pipelines.claim import claim_folder
from pipelines.prepare import prepare
from tests import kit
from tests.kit import decide_in_process

OPTIONS = {"max_model_len": 1024, "enforce_eager": True, "gpu_memory_utilization": 0.2, "disable_log_stats": False}


def pool(data, folder, rows):
    table = pq.read_table(data / "laion_urls_10k.parquet")["TEXT"].to_pylist()
    texts = [text for text in table if text and 3 <= len(text.split()) <= 25][:rows]
    path = folder / "pool.parquet"
    pq.write_table(pa.table({"url": [f"https://x/{i}" for i in range(len(texts))], "text": texts}), path)
    return str(path)


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        captions = {
            "engines": {"llm": {"vllm": {"model": str(options.models / "smollm2"), "options": OPTIONS}}},
            "rewrite": {"engine": "llm", "styles": ["human"]},
        }
        source = {"name": "x", "format": "parquet", "path": pool(options.data, here, options.rows)}
        recipe = parse_recipe({"input": source, "captions": captions})
        asked = recipe.captions
        assert asked is not None
        engine = open_engine(asked.engines["llm"], identify_engines(asked)["llm"])
        engine.check()
        llm = engine._llm

        def through(number):
            prepared = prepare(recipe, str(here / f"out{number}"))
            claim_folder(prepared)
            for unit in prepared.plan.units:
                kit.measure(prepared.context, unit)
            settings = DecideSettings.of(prepared.context)
            states = decide_in_process(settings, prepared.context, prepared.plan.units)
            draw_rows(states, settings, states.ask("Unread", lambda *_: []), None, None)
            began = time.perf_counter()
            for unit in prepared.plan.units:
                caption_unit(CaptionSettings.of(prepared.context), unit, prepared.context.unit_tables(unit), None)
            return time.perf_counter() - began

        prepared = prepare(recipe, str(here / "prompts"))
        claim_folder(prepared)
        requests = []
        for unit in prepared.plan.units:
            kit.measure(prepared.context, unit)
        settings = DecideSettings.of(prepared.context)
        states = decide_in_process(settings, prepared.context, prepared.plan.units)
        draw_rows(states, settings, states.ask("Unread", lambda *_: []), None, None)
        for unit in prepared.plan.units:
            tables = prepared.context.unit_tables(unit)
            captioning = CaptionSettings.of(prepared.context)
            requests += make_requests(captioning, tables, asked.requested[0], Rows.read(tables, None))
        grouped = sorted(requests, key=lambda request: request.group)
        anew = [drawn_anew(request, random.Random(i)) for i, request in enumerate(grouped)]

        def bare(order):
            from vllm import SamplingParams

            sampling = [
                SamplingParams(temperature=0.9, top_p=0.95, max_tokens=77, stop=["\n"], seed=r.sampling.seed)
                for r in order
            ]

            def run(_):
                began = time.perf_counter()
                llm.generate([r.prompt for r in order], sampling, use_tqdm=False)
                return time.perf_counter() - began

            return run

        sides = {"bare engine": bare(grouped), "curate": through, "bare engine, drawn anew": bare(anew)}
        best = dict.fromkeys(sides, float("inf"))
        llm.generate([grouped[0].prompt], warm_sampling(8), use_tqdm=False)
        for turn in range(2):
            for name, run in sides.items():
                llm.reset_prefix_cache()
                seconds = run(turn)
                best[name] = min(best[name], seconds)
                print(f"  {name:24s} {seconds:6.1f} s  {len(requests) / seconds:.2f} requests/s", flush=True)
        print(f"  curate reaches {best['bare engine'] / best['curate']:.3f} of the bare engine")
        print(
            f"  grouped prompts are {best['bare engine, drawn anew'] / best['bare engine']:.2f} x as fast as with examples drawn anew"
        )


def drawn_anew(request, rng):
    """The request with three other pairs of the style, in any order."""
    assert request.prompt is not None
    lines = request.prompt.split("\n")
    drawn = [f"{pair.source} => {pair.target}" for pair in rng.sample(load_pairs(request.style), 3)]
    places = [i for i, line in enumerate(lines[:-1]) if " => " in line]
    for place, line in zip(places, drawn, strict=True):
        lines[place] = line
    return replace(request, prompt="\n".join(lines))


def warm_sampling(tokens):
    from vllm import SamplingParams

    return SamplingParams(max_tokens=tokens)


if __name__ == "__main__":
    main()
