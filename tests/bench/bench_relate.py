"""s-CLIPLoss and NormSim against the bare matrix products that they hold, in turn, part by part.

    python -m tests.bench.bench_relate [--rows 1000000] [--dimension 512] [--references 8192] [--targets 50000]

Parts of 20,000 rows, several at once as units are worked on; the bare products are numpy's of the same rows, whole blocks
of 2,048 at a time. Memory is the peak of the process, without what the inputs take.
"""

import argparse
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from curate.models.products import products_with
from curate.relate.negclip import s_clip_loss
from curate.signals.formulas.embedding_scores import largest_cosine

PART = 20_000


def directions(rows, dimension, seed):
    rng = np.random.default_rng(seed)
    out = np.empty((rows, dimension), np.float16)
    for start in range(0, rows, PART):
        some = rng.standard_normal((min(PART, rows - start), dimension), np.float32)
        out[start : start + PART] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return out


def products(rows, others):
    """The bare product, in float32."""
    out = np.empty((2048, others.shape[1]), np.float32)
    for start in range(0, len(rows), 2048):
        some = rows[start : start + 2048].astype(np.float32)
        np.matmul(some, others, out=out[: len(some)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--references", type=int, default=8192)
    parser.add_argument("--targets", type=int, default=50_000)
    options = parser.parse_args()
    references = np.stack([directions(options.references, options.dimension, seed) for seed in (1, 2)], axis=1)
    hashes = np.sort(np.random.default_rng(3).integers(0, 1 << 63, options.references).astype(np.uint64))
    targets = directions(options.targets, options.dimension, 4).astype(np.float32)
    columns = [np.ascontiguousarray(references[:, side].astype(np.float32).T) for side in (0, 1)]
    works = {
        "negclip": (
            lambda images, texts: s_clip_loss(
                images, texts, np.zeros(len(images), np.uint64), hashes, references, 0.01
            ),
            lambda images, texts: (products(images, columns[1]), products(texts, columns[0])),
        ),
        "normsim": (
            lambda images, texts: largest_cosine(images, products_with(targets.T)),
            lambda images, texts: products(images, targets.T),
        ),
    }
    seconds = {name: [0.0, 0.0] for name in works}
    cores = os.cpu_count() or 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = 0
    with ThreadPoolExecutor(cores) as pool:
        while done < options.rows:
            parts = [
                [directions(PART, options.dimension, seed) for seed in (done + i, done + i + 7)] for i in range(cores)
            ]
            for name, pair in works.items():
                for place, work in enumerate(pair):
                    began = time.perf_counter()
                    list(pool.map(lambda part, work=work: work(*part), parts))
                    seconds[name][place] += time.perf_counter() - began
            done += PART * cores
    for name, (ours, bare) in seconds.items():
        print(f"{name}: {done:,} rows in {ours:.1f} s, bare products {bare:.1f} s: {ours / bare:.2f}")
    print(f"memory: {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000:,.0f} MB above the inputs")


if __name__ == "__main__":
    main()
