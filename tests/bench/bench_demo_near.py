"""The demo's injected near-duplicates: how precision and recall trade, by bits of the phash and by cosine of its CLIP.

    python -m tests.bench.bench_demo_near [--seeds 1 2 3 4 5]

Pools of 2,000 as the demo draws them, of other seeds than its own (0), so that its thresholds are not chosen on what
they are shown with. Taken are the pictures that its other rules would leave. Every pair is compared; what a chain of
near pairs joins is one group, of which the first in an arbitrary order stays. Recall is the share of the injected
near-duplicates that are gone; precision is the share, of these and of what went for another scene, of what went for its
own.

Different scenes of a pool differ in 4 bits or more by construction (`MIN_DISTANCE`), which flatters 2 bits: with
--anyhow they need not, and some do not. About 20 seconds a pool.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from curate.decide.dedup.groups import Groups
from curate.demo.drawing import decode, phash
from curate.demo.samples import DUPLICATES, NEAR_DUPLICATES, make_samples
from tests.demo.graphs import restore

BITS = (0, 2, 4, 6, 8)
COSINES = (0.95, 0.97, 0.98, 0.985, 0.9875, 0.99, 0.9925, 0.995)
BOTH = ((2, 0.985), (2, 0.99), (2, 0.9925), (4, 0.99))


@dataclass(frozen=True)
class Pool:
    """Of n pictures: the kind of defect, the row of the scene's original, distances and cosines of all pairs [n, n]."""

    kinds: npt.NDArray[np.str_]
    scenes: npt.NDArray[np.int64]
    distances: npt.NDArray[np.uint8]
    cosines: npt.NDArray[np.float32]


def draw(seed):
    """A pool's pictures, as far as rules leave them to deduplication."""
    import open_clip
    import torch

    drawn = make_samples(2000, seed)
    left = [(row, s) for row, s in enumerate(drawn) if s.defect in ("", *DUPLICATES, *NEAR_DUPLICATES)]
    hashes = np.array([phash(s.image) for _, s in left], np.uint64)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        model, _, transform = open_clip.create_model_and_transforms(restore(Path(folder)))
        views = torch.stack([transform(decode(s.image)) for _, s in left])
        embeddings = torch.cat([model.eval().encode_image(part, normalize=True) for part in views.split(200)]).numpy()
    kept = embeddings.astype(np.float16).astype(np.float32)  # as table `embeddings` has them
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    return Pool(
        np.array([s.defect for _, s in left]),
        np.array([row if s.original is None else s.original for row, s in left]),
        np.bitwise_count(hashes[:, None] ^ hashes),
        kept @ kept.T,
    )


def count(pool, bits, cosine):
    """Of one choice, int64[5 + kinds]: gone, injected; rightly, wrongly dropped; pairs of two scenes; gone by kind."""
    near = (pool.distances <= bits) | (pool.cosines >= cosine)
    rows, others = np.nonzero(np.triu(near, 1))
    groups = Groups.of(np.stack([rows, others], axis=1).astype(np.uint64))
    labels = groups.label(np.arange(len(near), dtype=np.uint64))
    order = np.random.default_rng(0).permutation(len(near))
    _, first, group = np.unique(labels[order], return_index=True, return_inverse=True)
    stays = np.empty(len(near), np.int64)
    stays[order] = order[first[group]]
    dropped, same = stays != np.arange(len(near)), pool.scenes[stays] == pool.scenes
    # An original that goes for a copy changes places with it.
    gone = dropped.copy()
    gone[stays[dropped & same & (pool.kinds == "")]] = True
    injected = np.isin(pool.kinds, NEAR_DUPLICATES)
    wrong = np.count_nonzero(dropped & ~same)
    strangers = np.count_nonzero(pool.scenes[rows] != pool.scenes[others])
    kinds = [np.count_nonzero(gone & (pool.kinds == kind)) for kind in NEAR_DUPLICATES]
    right = np.count_nonzero(gone & injected & same)
    return np.array([np.count_nonzero(gone & injected), np.count_nonzero(injected), right, wrong, strangers, *kinds])


def main():
    """Draws the pools and prints a line for each choice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--anyhow", action="store_true", help="scenes may be as like one another as they come")
    options = parser.parse_args()
    with patch("curate.demo.samples.MIN_DISTANCE", 0 if options.anyhow else 4):
        pools = [draw(seed) for seed in options.seeds]
    of_kind = [sum(np.count_nonzero(pool.kinds == kind) for pool in pools) for kind in NEAR_DUPLICATES]
    print(
        f"{'bits':>4} {'cosine':>7} {'recall':>7} {'precision':>9}   "
        "wrong and pairs of two scenes, a pool;  recall of each"
    )
    for bits, cosine in (*((b, 2.0) for b in BITS), *((0, x) for x in COSINES), *BOTH):
        gone, injected, right, wrong, strangers, *kinds = sum(count(pool, bits, cosine) for pool in pools).tolist()
        shown = f"{cosine:.4f}" if cosine <= 1 else "–"
        each = ", ".join(f"{k} {g / n:.0%}" for k, g, n in zip(NEAR_DUPLICATES, kinds, of_kind, strict=True))
        precision = right / (right + wrong) if right + wrong else 1.0
        per_pool = f"{wrong / len(pools):6.1f} {strangers / len(pools):6.1f}"
        print(f"{bits:>4} {shown:>7} {gone / injected:>7.1%} {precision:>9.1%}   {per_pool};  {each}")


if __name__ == "__main__":
    main()
