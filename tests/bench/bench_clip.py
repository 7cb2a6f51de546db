"""CLIP scoring end to end against its parts: bare decoding and bare forward passes of the same model and batch.

    python -m tests.bench.bench_clip --photos photos.tar [--model ViT-B-32] [--copies 2]

Weights are random: speed does not depend on them. Everything runs on this machine's CPU, one thing after another, and
each is timed on the wall, since decoding and the model share the cores.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from curate.models.clip_model import load_encoder
from curate.recipe.recipe import parse_recipe
from pipelines.prepare import prepare
from tests import kit

SMALL = "ViT-S-32-alt"
MEMORY = """
import sys
from tests.bench.bench_clip import peak
print(peak(*sys.argv[1:]))
"""


def copies(photos, target, count):
    """A tar that holds the photos several times, under other keys."""
    with tarfile.open(photos) as source, tarfile.open(target, "w") as tar:
        members = [(m.name, (source.extractfile(m) or io.BytesIO()).read()) for m in source]
        for copy in range(count):
            for name, data in members:
                info = tarfile.TarInfo(f"{copy}_{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def pairs(path):
    """Images and captions."""
    with tarfile.open(path) as tar:
        found = {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar}
    images = [data for name, data in found.items() if name.endswith(".jpg")]
    return images, [data.decode() for name, data in found.items() if name.endswith(".txt")]


def make_weights(model, path):
    """A file of random weights."""
    import open_clip
    from safetensors.torch import save_file

    net = open_clip.create_model(model)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)


def bare(model, weights, tar, batch):
    """Wall seconds of decoding with the model's transform in threads, of encoding all images, and of all texts."""
    import open_clip
    import torch

    images, texts = pairs(tar)
    net, _, transform = open_clip.create_model_and_transforms(model, pretrained=str(weights))
    tokenizer = open_clip.get_tokenizer(model)
    net.eval()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        began = time.perf_counter()
        ready = list(pool.map(lambda data: transform(Image.open(io.BytesIO(data))), images))
        decoding = time.perf_counter() - began
    with torch.inference_mode():
        net.encode_image(torch.stack(ready[:batch]))  # warm
        began = time.perf_counter()
        for first in range(0, len(ready), batch):
            net.encode_image(torch.stack(ready[first : first + batch]), normalize=True)
        seeing = time.perf_counter() - began
        net.encode_text(tokenizer(texts[:batch]))
        began = time.perf_counter()
        for first in range(0, len(texts), batch):
            net.encode_text(tokenizer(texts[first : first + batch]), normalize=True)
        reading = time.perf_counter() - began
    return decoding, seeing, reading


def job_of(model, weights, tar, out, **options):
    """A run over the tar, ready to measure."""
    clip = {"model": model, "pretrained": str(weights), **options}
    recipe = parse_recipe({"input": {"name": "x", "format": "webdataset", "path": str(tar)}, "measure": {"clip": clip}})
    prepared = prepare(recipe, str(out))
    return prepared.context, prepared.plan.units


def ours(model, weights, tar, **options):
    """Wall seconds to measure the tar: index, decode, check, hash, encode, score, write tables; the model is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        context, units = job_of(model, weights, tar, Path(folder) / "out", **options)
        encoder = load_encoder(context.recipe.measure.clip[0])
        encoder.encode_images([encoder.view(Image.new("RGB", (64, 64)))] * encoder.batch)
        began = time.perf_counter()
        for unit in units:
            kit.measure(context, unit)
        return time.perf_counter() - began


def peak(model, weights, tar):
    """Peak memory of this process in MB, after measuring the tar."""
    ours(model, Path(weights), Path(tar))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--batches", default="8,32,128")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        tar, weights = here / "photos.tar", here / "weights.safetensors"
        copies(options.photos, tar, options.copies)
        make_weights(options.model, weights)
        count = len(pairs(tar)[0])
        print(f"{options.model}, {count} pairs, fp32, wall seconds")
        decoding, seeing, reading = bare(options.model, weights, tar, 32)
        total = decoding + seeing + reading
        print(f"  bare: decode {decoding:.2f}, images {seeing:.2f}, texts {reading:.2f}: {total:.2f}")
        found = {batch: ours(options.model, weights, tar, batch=int(batch)) for batch in options.batches.split(",")}
        for batch, wall in found.items():
            print(
                f"  curate, batch {batch:>4}  {wall:.2f}  {count / wall:.1f} pairs/s  {wall / total:.2f} of the bare sum"
            )
        import torch

        threads = torch.get_num_threads()
        for number in range(1, threads):
            torch.set_num_threads(number)
            wall = ours(options.model, weights, tar)
            print(f"  curate, {number} of {threads} threads for the model  {wall:.2f}  {wall / total:.2f}")
        torch.set_num_threads(threads)
        half = ours(options.model, weights, tar, precision="bf16")
        print(f"  curate, bf16 weights {half:.2f}  {half / total:.2f}")
        larger = here / "larger.tar"
        copies(options.photos, larger, 4 * options.copies)
        small = here / "small.safetensors"
        make_weights(SMALL, small)
        commands = [[sys.executable, "-c", MEMORY, SMALL, str(small), str(path)] for path in (tar, larger)]
        one, four = (float(subprocess.check_output(command)) for command in commands)
        print(f"  {SMALL}: peak {one:.0f} MB, of four times as many pairs {four:.0f} MB: {four / one:.2f}")


if __name__ == "__main__":
    main()
