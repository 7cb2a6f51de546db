"""Trains the demo's CLIP: `python -m tests.demo.train_clip --out FOLDER [--seed 0]`.

In: a seed; the scenes are drawn here. Out: a folder that open_clip loads as `local-dir:FOLDER`, at most 4 MB:
`open_clip_config.json` and `open_clip_model.safetensors` (float16); and in FOLDER/onnx the same as ONNX graphs. `curate/demo/clip`
holds the graphs that it made with seed 0.

Training draws 60,000 scenes with four captions each and takes 3,000 steps of 256 pairs: 21 minutes of CPU time. Among
100 captions of new scenes, the right one comes first for 95.8%; `test_clip.py` measures it.

The model is open_clip's plain `CLIP` with OpenAI's vocabulary and a context of 77 tokens: a small ModifiedResNet on
64 × 64 pixels, the whole picture squashed, and a causal text transformer 32 wide, four layers deep. Its embeddings
have 64 numbers. It knows the words of the demo's captions and no others: the rest of the 49,408 words share one row,
which was trained, as strange words were put among the captions.
"""

import argparse
import io
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from curate.demo.drawing import draw
from curate.demo.samples import caption
from curate.demo.scenes import compose
from tests.demo.graphs import export

SIZE = 64
CONTEXT = 77
VOCABULARY = 49408
TEXT_CFG = {"context_length": CONTEXT, "vocab_size": VOCABULARY, "width": 32, "heads": 4, "layers": 4}
VISION_CFG = {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
MODEL_CFG = {"embed_dim": 64, "vision_cfg": VISION_CFG, "text_cfg": TEXT_CFG}
PREPROCESS_CFG = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

TRAINING_SCENES = 60_000
CAPTIONS = 4  # of each scene
STEPS = 3_000
BATCH = 256
WARM_UP = 100  # steps
RATE = 2e-3
DECAY = 0.05
LITTERED = 0.15  # of the texts: with one to four words that the model does not know
JOINED = 8  # every so many steps a batch has the scenes' captions joined, so that late positions are trained too


@dataclass(frozen=True)
class Scenes:
    """Drawn scenes: pixels uint8 [n, 3, SIZE, SIZE], and of each its captions."""

    pixels: np.ndarray
    captions: list


def draw_scenes(seed, purpose, count):
    """Scenes of a stream of their own: other purposes, other seeds and the demo's pools have others."""
    # Spawned: a forked child of a process with the threads of torch may die or hang.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        drawn = list(processes.map(partial(_drawn, seed, purpose), range(count), chunksize=250))
    return Scenes(np.stack([pixels for pixels, _ in drawn]), [captions for _, captions in drawn])


def _drawn(seed, purpose, row):
    """One scene, as the model gets it from a pool: a JPEG, squashed as open_clip's transform does it."""
    entropy = [seed, int.from_bytes(purpose.encode(), "big"), row]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    scene = compose(rng, 220 + int(rng.random() * 181), 220 + int(rng.random() * 181))
    file = io.BytesIO()
    draw(scene, rng).save(file, "JPEG", quality=85)
    picture = Image.open(file).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1), [caption(scene, rng) for _ in range(CAPTIONS)]


def train(scenes, seed, steps):
    """A CLIP trained on the scenes, and the words that it knows: those of the captions, then start and end.

    Words are int64 [k], ids of OpenAI's vocabulary, ascending. The model's embedding has k + 1 rows, so that nothing
    is spent on 49,000 words that never come: row 0 is of every other word, row i + 1 of word i.

    The loss is CLIP's: cross entropy over the batch, both ways, with a learnt temperature (Radford et al. 2021,
    section 2.3). Equal arguments give equal weights with one kind of processor and one version of torch, on one thread.
    """
    import torch
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    known, captions = _compact(scenes.captions)
    model = CLIP(**MODEL_CFG | {"text_cfg": TEXT_CFG | {"vocab_size": len(known) + 1}})
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    loss_of, started = ClipLoss(), time.perf_counter()
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = rng.choice(len(captions), BATCH, replace=False)
        texts = [_text(captions[row], len(known), rng, step % JOINED == JOINED - 1) for row in rows]
        loss = loss_of(_encode_images(model, scenes.pixels[rows]), _encode_texts(model, texts), model.logit_scale.exp())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.3f}, {time.perf_counter() - started:.0f} s", flush=True)
    return model.eval(), known


def _compact(captions):
    """The words of all captions, start and end included, and the captions as rows of the embedding, without these."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    ids = [[tokenizer.encode(text) for text in texts] for texts in captions]
    spoken = sorted({word for texts in ids for text in texts for word in text})
    known = np.array([*spoken, tokenizer.sot_token_id, tokenizer.eot_token_id], np.int64)
    return known, [[(np.searchsorted(known, text) + 1).tolist() for text in texts] for texts in ids]


def _text(captions, end, rng, joined):
    """One of a scene's captions, or all of them in a row; sometimes with unknown words; with start and end."""
    order = rng.permutation(len(captions))[: None if joined else 1]
    text = [word for i in order for word in captions[i]]
    if rng.random() < LITTERED:
        for _ in range(rng.integers(1, 5)):
            text.insert(rng.integers(len(text) + 1), 0)
    return [end - 1, *text[: CONTEXT - 2], end]


def _encode_images(model, pixels):
    """Unit vectors float32 [n, embed_dim] of uint8 [n, 3, SIZE, SIZE], normalised as open_clip's transform does it."""
    import torch

    mean, std = (torch.tensor(PREPROCESS_CFG[name])[:, None, None] for name in ("mean", "std"))
    return model.encode_image((torch.from_numpy(pixels).float() / 255 - mean) / std, normalize=True)


def _encode_texts(model, texts):
    """Unit vectors float32 [n, embed_dim] of texts; `encode_text`, trimmed to the longest."""
    import torch
    from torch.nn import functional as F

    longest = max(map(len, texts))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    x = model.token_embedding(ids) + model.positional_embedding[:longest]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:longest, :longest]))
    return F.normalize(x[torch.arange(len(x)), ids.argmax(dim=-1)] @ model.text_projection, dim=-1)


def write_model(model, known, folder):
    """Writes the folder that open_clip loads, with the whole vocabulary; weights are rounded to float16."""
    import torch
    from safetensors.torch import save

    weights = {name: w.half() if w.is_floating_point() else w for name, w in model.state_dict().items()}
    rows = weights["token_embedding.weight"]
    table = rows[0].repeat(VOCABULARY, 1)
    table[torch.from_numpy(known)] = rows[1:]
    weights["token_embedding.weight"] = table
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_model.safetensors").write_bytes(save(weights))
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main():
    """Draw, train and write."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m tests.demo.train_clip", description="Train the demo's CLIP.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the model goes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)  # sums do not hang on the number of cores, and no thread waits for another
    scenes = draw_scenes(arguments.seed, "training", TRAINING_SCENES)
    model, known = train(scenes, arguments.seed, STEPS)
    write_model(model, known, arguments.out)
    export(f"local-dir:{arguments.out}", arguments.out / "onnx")


if __name__ == "__main__":
    main()
