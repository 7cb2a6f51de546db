"""Near-duplicates: what is found of injected ones, and speed against comparing everything and against index libraries.

    python -m tests.bench.bench_near --data FOLDER [--hashes 1000000] [--rows 200000]

FOLDER holds photos.tar. Every photo is injected again: encoded anew, resized, cropped. Recall is the share of these that
are as near to their original as a threshold asks, precision the share of the near pairs that are of one photo. Hashes
are perceptual hashes as measured; embeddings are *stand-ins*, a random projection of 32 x 32 grey pixels to 64
dimensions, so their numbers say how the thresholds trade, not what a CLIP finds.

Then speed, in CPU-seconds: on random hashes and on drawn embeddings of 512 dimensions, a tenth of them injected. What
compares everything is timed on a part and scaled by the number of pairs. faiss and usearch are measured where they are
installed, at the recall that they reach. About ten minutes.
"""

import argparse
import importlib.util
import io
import itertools
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from curate.decide.dedup import cells, hamming
from curate.decide.dedup.groups import Groups
from curate.read.image import as_rgb
from curate.read.phash import hash_small, shrink
from tests.decide.dedup.naive import cosine_groups, hamming_groups

DIMENSIONS = 512
COSINE = 0.95


def encoded(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return Image.open(io.BytesIO(out.getvalue()))


def resized(picture, factor):
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def cropped(picture, part):
    """This part of either side, a little off the middle."""
    width, height = picture.size
    left, top = round(width * (1 - part) / 2), round(height * (1 - part) / 3)
    return picture.crop((left, top, left + round(width * part), top + round(height * part)))


CHANGES = {
    "PNG": lambda p: encoded(p, "PNG"),
    "JPEG, quality 80": lambda p: encoded(p, "JPEG", quality=80),
    "JPEG, quality 30": lambda p: encoded(p, "JPEG", quality=30),
    "WebP, quality 50": lambda p: encoded(p, "WEBP", quality=50),
    "resized to 75 %": lambda p: resized(p, 0.75),
    "resized to 50 %": lambda p: resized(p, 0.5),
    "resized to 150 %": lambda p: resized(p, 1.5),
    "cropped to 98 %": lambda p: cropped(p, 0.98),
    "cropped to 95 %": lambda p: cropped(p, 0.95),
    "cropped to 90 %": lambda p: cropped(p, 0.9),
    "cropped to 80 %": lambda p: cropped(p, 0.8),
}


def read_photos(path):
    with tarfile.open(path) as tar:
        for member in tar:
            if member.name.endswith(".jpg") and (file := tar.extractfile(member)):
                yield as_rgb(Image.open(io.BytesIO(file.read())))


def stand_in(picture, projection):
    pixels = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), np.float32).reshape(-1)
    vector = (pixels - pixels.mean()) @ projection
    return (vector / max(np.linalg.norm(vector), 1e-6)).astype(np.float16)


def tell_quality(unit, near, found):
    """One line for a threshold.

    Args:
        unit: the threshold.
        near: bool[changes, photos], the injected ones that are near their original.
        found: bool[n, n], all near pairs, with the originals first and then the injected ones by change.
    """
    photos = np.tile(np.arange(near.shape[1]), len(near) + 1)
    upper = np.triu(found, 1)
    right = upper & (photos[:, None] == photos)
    shares = "".join(f"{100 * share:6.0f}" for share in near.mean(axis=1))
    print(f"  {unit:>6} {shares} | {near.mean():6.3f} {right.sum() / max(upper.sum(), 1):6.3f}")


def bench_quality(tar):
    pictures = list(read_photos(tar))
    injected = [[change(picture) for picture in pictures] for change in CHANGES.values()]
    everything = [*pictures, *itertools.chain(*injected)]
    print(f"{len(pictures)} photos, each injected in {len(CHANGES)} forms: % found of each form | recall, precision")
    print("".join(f"  {i + 1:2}: {name}\n" for i, name in enumerate(CHANGES)), end="")
    hashes = hash_small([shrink(as_rgb(picture)) for picture in everything])
    distances = np.bitwise_count(hashes[:, None] ^ hashes)
    print(" phash, distance at most")
    for k in (0, 2, 4, 6, 8, 10, 12, 16):
        tell_quality(str(k), near_originals(distances <= k, len(pictures)), distances <= k)
        expected = Groups.of(np.stack([hashes[side] for side in np.nonzero(distances <= k)], axis=1))
        assert np.array_equal(expected.labels, hamming_groups(hashes, k).labels), "edges were missed"
    projection = np.random.default_rng(0).normal(size=(1024, 64)).astype(np.float32)
    vectors = np.stack([stand_in(picture, projection) for picture in everything])
    flat = np.flatnonzero(~cells.usable(vectors))
    cosines = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    print(f" stand-in embeddings, cosine at least ({len(flat)} images without contrast have none)")
    for x in (0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8):
        tell_quality(str(x), near_originals(cosines >= x, len(pictures)), cosines >= x)


def near_originals(found, photos):
    """bool[changes, photos] of bool[n, n]."""
    return np.stack([np.diagonal(found[:photos, i : i + photos]) for i in range(photos, len(found), photos)])


def cpu(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def random_hashes(rng, size):
    return rng.integers(0, (1 << 64) - 1, size, np.uint64, endpoint=True)


def bench_hashes(rows):
    rng = np.random.default_rng(0)
    hamming_groups(random_hashes(rng, 1000), 8)
    part = random_hashes(rng, 100_000)
    everything = cpu(lambda: hamming.edges_in_bucket(part, np.uint64(0), 8)) * (rows / len(part)) ** 2
    print(f"{rows:,} random hashes, of which a tenth are injected; comparing all takes {everything:.0f} CPU-s")
    for k in (2, 4, 6, 8, 10):
        hashes = random_hashes(rng, rows)
        flips = rng.permuted(np.tile(np.arange(64), (rows // 10, 1)), axis=1)[:, :k].astype(np.uint64)
        hashes[-len(flips) :] = hashes[: len(flips)] ^ np.bitwise_xor.reduce(np.uint64(1) << flips, axis=1)
        results = []
        seconds = cpu(lambda k=k, hashes=hashes, results=results: results.append(hamming_groups(hashes, k)))  # type: ignore[misc]
        [groups] = results
        found = groups.label(hashes[: len(flips)]) == groups.label(hashes[-len(flips) :])
        print(
            f"  distance {k:2}: {len(hamming.bands(k, rows)):3} bands, {seconds:6.1f} CPU-s, {rows / seconds / 1e6:5.2f} M "
            f"hashes/CPU-s, {everything / seconds:6.0f} times as fast; recall {found.mean():.4f}, "
            f"{len(groups.edges) - len(flips):+d} joined by chance"
        )


def drawn_embeddings(rows):
    """Embeddings in a cone and in topics, as CLIP's are; and the pairs that were injected, with cosines of 0.9 to 1."""
    rng = np.random.default_rng(0)
    first = rows - rows // 10
    spectrum = (1 + np.arange(DIMENSIONS)) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    cone = rng.normal(size=DIMENSIONS)
    topics = rng.normal(size=(2000, DIMENSIONS)) * spectrum
    chosen = rng.choice(len(topics), first, p=rng.dirichlet(np.full(len(topics), 0.5)))
    base = cone / np.linalg.norm(cone) + 0.7 * (topics[chosen] + rng.normal(size=(first, DIMENSIONS)) * spectrum)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    originals = rng.integers(0, first, rows - first)
    aside = rng.normal(size=(rows - first, DIMENSIONS))
    aside -= (aside * base[originals]).sum(axis=1, keepdims=True) * base[originals]
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    cosines = rng.uniform(0.9, 1, (rows - first, 1))
    vectors = np.concatenate([base, cosines * base[originals] + np.sqrt(1 - cosines**2) * aside]).astype(np.float16)
    return vectors, np.stack([originals, np.arange(first, rows)], axis=1)


def bench_embeddings(rows):
    vectors, injected = drawn_embeddings(rows)
    nodes = np.arange(rows, dtype=np.uint64)
    own = vectors[injected].astype(np.float64)
    lengths = np.linalg.norm(own, axis=2)
    injected = injected[(own[:, 0] * own[:, 1]).sum(axis=1) / lengths.prod(axis=1) >= COSINE]
    cosine_groups(nodes[:100], vectors[:100], COSINE)
    part = min(rows, cells.WHOLE)
    everything = cpu(lambda: cosine_groups(nodes[:part], vectors[:part], COSINE)) * (rows / part) ** 2
    print(f"{rows:,} x {DIMENSIONS} embeddings, {len(injected):,} injected with a cosine of at least {COSINE}")
    print(f"  comparing all: {everything:.0f} CPU-s")
    all_groups = []
    seconds = cpu(lambda: all_groups.append(cosine_groups(nodes, vectors, COSINE)))
    groups = all_groups[0]
    found = groups.label(nodes[injected[:, 0]]) == groups.label(nodes[injected[:, 1]])
    print(f"  curate: {seconds:.1f} CPU-s, {everything / seconds:.1f} times as fast; recall {found.mean():.4f}")
    count = cells.cell_count(rows)
    sample = vectors[cells.sample_rows(vectors, rows, count)]
    centroids = []
    training = cpu(lambda: centroids.append(cells.train(sample, count)))
    visited = []
    visiting = cpu(lambda: visited.append(cells.visits(vectors, centroids[0])))
    print(f"    of these {training:.1f} s of training {count} cells, {visiting:.1f} s of assigning rows")
    for width in (1, 2, 4, 8):
        a, b = (visited[0][injected[:, side], :width] for side in (0, 1))
        met = (a == b[:, :1]).any(axis=1) | (b == a[:, :1]).any(axis=1)
        print(f"    pairs that meet with {width} cells a row: {met.mean():.4f}")
    bench_libraries(vectors.astype(np.float32), injected, count)


def bench_libraries(vectors, injected, count):
    """Index libraries with their default threads: build and search, and the injected pairs among their answers."""
    rows = len(vectors)

    def tell(name, seconds, queries, answers):
        keys = np.unique(np.minimum(queries, answers) * rows + np.maximum(queries, answers))
        recall = np.isin(injected.min(axis=1) * rows + injected.max(axis=1), keys).mean()
        print(f"  {name}: {seconds:.1f} CPU-s; recall {recall:.4f}")

    if importlib.util.find_spec("faiss"):
        import faiss

        start = time.process_time()
        ivf = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIMENSIONS), DIMENSIONS, count, faiss.METRIC_INNER_PRODUCT)
        ivf.train(vectors[:: max(1, rows // (32 * count))])
        ivf.add(vectors)
        ivf.nprobe = cells.VISITS
        limits, _, answers = ivf.range_search(vectors, COSINE - 1e-3)
        queries = np.repeat(np.arange(rows), np.diff(limits.astype(np.int64)))
        tell("faiss IVF, as many cells and visits", time.process_time() - start, queries, answers)
        start = time.process_time()
        graph = faiss.IndexHNSWFlat(DIMENSIONS, 16, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = 80, 64
        graph.add(vectors)
        answers = graph.search(vectors, 16)[1].reshape(-1)
        tell("faiss HNSW", time.process_time() - start, np.repeat(np.arange(rows), 16), answers)
    if importlib.util.find_spec("usearch"):
        from usearch.index import Index

        start = time.process_time()
        index = Index(ndim=DIMENSIONS, metric="ip", dtype="f16", connectivity=16, expansion_add=80, expansion_search=64)
        index.add(np.arange(rows), vectors)
        answers = index.search(vectors, 16).keys.astype(np.int64).reshape(-1)
        tell("usearch HNSW", time.process_time() - start, np.repeat(np.arange(rows), 16), answers)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=200_000)
    arguments = parser.parse_args()
    bench_quality(arguments.data / "photos.tar")
    bench_hashes(arguments.hashes)
    bench_embeddings(arguments.rows)


if __name__ == "__main__":
    main()
