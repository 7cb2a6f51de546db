"""What a curation is worth: a small CLIP trained on what each recipe keeps of a demo's pool, with the same samples seen.

    python -m tests.bench.bench_train [--samples 6000] [--steps 120] [--seeds 3]

The pool is the demo's, with its injected defects. Each recipe is run; the model of `tests.demo.train_clip` (open_clip's CLIP,
64 pixels) is trained from nothing on the kept pairs, so many steps of 256 pairs, whatever is kept; pairs that a recipe repeats
are in the list that often. Measured on 1,000 scenes of no pool: the colour of the ground among all, by prompts (zero-shot), and
the caption among 100 and the picture among 100 (retrieval, the mean of both R@1). Mean and standard error over the seeds.
"""

import argparse
import io
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

from curate.api import Run
from curate.cli.demo import _write_recipe
from curate.demo.drawing import draw
from curate.demo.pool import write_pool
from curate.demo.samples import caption
from curate.demo.scenes import compose
from curate.demo.words import GROUND_COLOURS, SHAPES
from tests.demo.train_clip import SIZE, Scenes, _encode_images, _encode_texts, train
from tests.kit.commands import run_command

UNSEEN = 1_000


def recipes(folder, samples):
    """Everything; the demo's recipe; s-CLIPLoss; a soft cap over two scores."""
    _write_recipe(str(folder), str(folder / "recipe.yaml"))
    demo = yaml.safe_load((folder / "recipe.yaml").read_text())
    shared = {name: demo[name] for name in ("input", "measure", "output", "max_failed")}
    negclip = {"negclip": {"s_clip": {"references": 2048, "temperature": 0.05}}}
    return {
        "everything": shared,
        "demo's recipe": demo | {"balance": {"rows": demo["balance"]["rows"] * samples // 2000}},
        "s-CLIPLoss, best half": shared
        | {"relate": negclip, "rules": {"best": {"top": 0.5, "of": "s_clip", "over": "pool"}}},
        "soft cap of both scores": shared
        | {
            "relate": negclip,
            "derive": {"quality": "2 * zscore(s_clip) + zscore(clip_score)"},
            "sample": {"soft_cap": {"of": "quality", "draws": samples, "penalty": 0.15, "batch": samples // 20}},
        },
    }


def read_pairs(run):
    """The kept pairs, each as often as the run repeats it."""
    pixels, captions = [], []
    for tar in sorted((run / "shards").glob("*.tar")):
        table = pq.read_table(tar.with_suffix(".parquet"))
        repeats = table["repeats"].to_pylist() if "repeats" in table.column_names else [1] * len(table)
        members = {}
        with tarfile.open(tar) as opened:
            for member in opened:
                key, _, suffix = member.name.partition(".")
                members.setdefault(key, {})[suffix] = opened.extractfile(member).read()  # type: ignore[union-attr]
        for sample, times in zip(members.values(), repeats, strict=True):
            [image] = (data for suffix, data in sample.items() if suffix not in ("json", "txt"))
            picture = Image.open(io.BytesIO(image)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            pixels += [np.asarray(picture).transpose(2, 0, 1)] * times
            captions += [[sample["txt"].decode()]] * times
    return Scenes(np.stack(pixels), captions)


def draw_unseen(seed, row):
    """A scene of no pool: its pixels, the colour of its ground, and a caption."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 4711, row])))
    scene = compose(rng, 300, 300)
    picture = draw(scene, rng).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1), scene.background_colour, caption(scene, rng)


def score(run, steps, seed):
    """Zero-shot accuracy and retrieval of a model trained on a run."""
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    torch.set_num_threads(1)
    model, known = train(read_pairs(run), seed, steps)
    tokenizer = SimpleTokenizer()

    def encode(texts):
        known_ids = {int(word): i + 1 for i, word in enumerate(known.tolist())}
        rows = [[known_ids.get(word, 0) for word in tokenizer.encode(text)][:75] for text in texts]
        return _encode_texts(model, [[len(known) - 1, *row, len(known)] for row in rows])

    pixels, colours, captions = zip(*map(partial(draw_unseen, seed), range(UNSEEN)), strict=True)
    with torch.inference_mode():
        images = torch.cat([_encode_images(model, np.stack(pixels[i : i + 100])) for i in range(0, UNSEEN, 100)])
        prompts = [encode([f"a {shape} on a {colour} background" for shape in SHAPES]) for colour in GROUND_COLOURS]
        classes = torch.nn.functional.normalize(torch.stack([of.mean(dim=0) for of in prompts]), dim=-1)
        found = (images @ classes.T).argmax(dim=1).tolist()
        accuracy = float(np.mean([GROUND_COLOURS[i] == colour for i, colour in zip(found, colours, strict=True)]))
        texts = encode(list(captions))
        cosines = [images[i : i + 100] @ texts[i : i + 100].T for i in range(0, UNSEEN, 100)]
        right = [float((c.argmax(dim=way) == torch.arange(100)).float().mean()) for c in cosines for way in (0, 1)]
    return accuracy, float(np.mean(right))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        write_pool(folder / "pool", samples=options.samples, seed=1, shards=4)
        runs = {}
        for place, (title, recipe) in enumerate(recipes(folder, options.samples).items()):
            path = folder / f"recipe{place}.yaml"
            path.write_text(yaml.safe_dump(recipe, sort_keys=False))
            reuse = ["--reuse", str(folder / "run0")] if place else []
            done = run_command("run", str(path), "--out", str(folder / f"run{place}"), *reuse)
            assert done.status == 0, done.err
            runs[title] = folder / f"run{place}"
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
            waiting = {
                title: [processes.submit(score, run, options.steps, seed) for seed in range(options.seeds)]
                for title, run in runs.items()
            }
            print(f"{options.steps * 256:,} samples seen, {options.seeds} seeds")
            for title, futures in waiting.items():
                kept = Run(str(runs[title])).sql("SELECT count(*) AS n FROM kept")["n"][0].as_py()
                figures = np.array([future.result() for future in futures])
                mean, error = figures.mean(axis=0), figures.std(axis=0, ddof=1) / len(figures) ** 0.5
                print(
                    f"{title:26} {kept:6,} kept: zero-shot {mean[0]:.1%} ± {error[0]:.1%}, retrieval {mean[1]:.1%} ± {error[1]:.1%}",
                    flush=True,
                )
        print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
