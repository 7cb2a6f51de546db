"""Images, captions and languages per CPU-second, and each as a ratio to the bare library call.

And what takes how much of a whole run over tars; what scaled decoding of JPEGs gains, and what it does to the scores of the
demo's CLIP.

Run from the checkout: `python -m tests.bench.bench_image`; about two minutes, all inputs are drawn.
"""

import hashlib
import io
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.emit.settings import EmitSettings
from curate.pool.registry import find_format
from curate.read.image import measure_image
from curate.read.phash import hash_small
from curate.read.text import check_captions
from curate.recipe.measure import Image as ImageOptions
from curate.recipe.recipe import parse_recipe
from curate.signals.language import detect_languages
from tests import kit
from tests.bench.bench_emit import decide_units, emit, make_pool, plan_run
from tests.bench.bench_shards import cpu_seconds

IMAGES = 150


def photo(seed):
    """A JPEG of 640 x 480 pixels and about 60 KB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 6, (480, 640, 1))
    picture = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return out.getvalue()


def rates(items, works):
    """Items per CPU-second of each, the best of eight; in turns, so that the allocator's state favours none."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(8):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    return {name: items / seconds for name, seconds in best.items()}


def wall(work):
    """Seconds, the best of five: now and then two threads keep waiting for each other for a whole round."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def bench_images():
    photos = [photo(seed) for seed in range(IMAGES)]
    print(f"{IMAGES} JPEGs of 640 x 480, {np.mean([len(p) for p in photos]) / 1000:.0f} KB on average, per CPU-second")

    def bare_decode():
        for data in photos:
            Image.open(io.BytesIO(data)).load()

    def bare_phash():
        for data in photos:
            imagehash.phash(Image.open(io.BytesIO(data)))

    def bare_hash():
        for data in photos:
            hashlib.sha256(data).hexdigest()

    def ours(options):
        def measure():
            facts = [measure_image(data, options) for data in photos]
            hash_small([fact.small for fact in facts if fact.small])

        return measure

    bare = {"sha256": bare_hash, "decode": bare_decode, "phash": bare_phash}
    modes = {
        "header": (ImageOptions(decode=False), ["sha256"]),
        "decode": (ImageOptions(), ["sha256", "decode"]),
        "decode + phash": (ImageOptions(phash=True), ["sha256", "phash"]),
    }
    works = {f"library alone, {name}": work for name, work in bare.items()}
    works |= {f"measure, {name}": ours(options) for name, (options, _) in modes.items()}
    got = rates(IMAGES, works)
    for name, value in got.items():
        print(f"  {name:24s} {value:8.0f}")
    for name, (_, peers) in modes.items():
        alone = 1 / sum(1 / got[f"library alone, {peer}"] for peer in peers)
        print(f"  {name}: {got[f'measure, {name}'] / alone:.2f} of the libraries' {' and '.join(peers)} alone")
    options = ImageOptions(phash=True)
    one = wall(lambda: [measure_image(data, options) for data in photos * 2])
    with ThreadPoolExecutor(2) as pool:
        two = wall(lambda: list(pool.map(lambda data: measure_image(data, options), photos * 2)))
    print(f"  two threads against one, decode + phash, wall: {one / two:.2f}")


def bench_run():
    """What takes how much of the CPU of a whole run over tars, with phash: each part is done alone, on the same bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pool").mkdir()
        paths = make_pool(folder / "pool", 3, 1000)
        recipe = parse_recipe(
            {
                "input": [{"name": "pool", "format": "webdataset", "path": f"{folder}/pool/*.tar"}],
                "measure": {"image": {"phash": True}},
                "dedup": {"by": ["uid", "sha256"]},
            }
        )
        kit.run_beam(recipe, folder / "warm")
        whole = cpu_seconds(lambda: kit.run_beam(recipe, folder / "run"), 1)
        context, units = plan_run(recipe, folder / "measured")
        measure = cpu_seconds(lambda: [kit.measure(context, unit) for unit in units], 1)
        kept = decide_units(context, units)
        tables = [(path, pq.read_table(path)) for path in (folder / "measured/tables").rglob("*.parquet")]
        kind, source = find_format(recipe.input[0]), recipe.input[0]
        parts = [part for unit in units for part in unit.parts]

        def read():
            return [batch for part in parts for batch in kind.read(source, part, pa.schema([]), None)]

        images = [bytes(data) for b in read() if b.images for data in b.images(np.ones(len(b.columns["key"]), bool))]

        def decode():
            opened = [Image.open(io.BytesIO(data)) for data in images[:500]]
            return [image for image in opened if image.load()]

        decoded = decode()
        alone = {
            "decoding": cpu_seconds(decode) * len(images) / len(decoded),
            "phash": cpu_seconds(lambda: [imagehash.phash(image) for image in decoded]) * len(images) / len(decoded),
            "sha256": cpu_seconds(lambda: [hashlib.sha256(data).digest() for data in images]),
            "indexing, captions, .json": cpu_seconds(read),
            "tables of measuring": cpu_seconds(
                lambda: [context.store.write_parquet(f"again/{path.name}", table) for path, table in tables]
            ),
            "emit": cpu_seconds(lambda: emit(EmitSettings.of(context), kept)),
        }
        alone["deciding, publishing, Beam"] = whole - measure - alone["emit"]
        print(
            f"a run over {len(paths)} tars, {len(images):,} JPEGs of 448 x 320, {whole / len(images) * 1e6:.0f} µs of CPU each"
        )
        for title, seconds in alone.items():
            print(f"  {title:26s} {seconds / whole:6.1%}")
        library = sum(alone[title] for title in ("decoding", "phash", "sha256"))
        print(f"  measuring: {library / measure:.2f} of the three libraries alone")


def bench_scaled():
    """`measure.image.jpeg_side`, at once and at twice the side of the demo's CLIP (64): speed, and scores."""
    from curate.demo import scenes
    from curate.demo.drawing import draw
    from curate.demo.samples import caption
    from curate.demo.scenes import compose
    from curate.models.clip_model import load_encoder
    from curate.signals.clip import Clip

    encoder = load_encoder(Clip(model=f"onnx:{Path(scenes.__file__).parent / 'clip'}"))
    side, count = 64, 300
    pictures, captions = [], []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scene = compose(rng, 600, 450)
        out = io.BytesIO()
        draw(scene, rng).convert("RGB").save(out, "JPEG", quality=85)
        pictures.append(out.getvalue())
        captions.append(caption(scene, rng))
    texts = encoder.encode_texts(captions).embeddings

    def scores(options):
        start = time.process_time()
        views = [measure_image(data, options, [encoder.view]).observed[0] for data in pictures]
        seconds = time.process_time() - start
        return seconds, np.einsum("ij,ij->i", encoder.encode_images(views), texts)

    print(f"{count} scenes as JPEGs of 600 x 450, decoded and looked at by the demo's CLIP ({side} pixels)")
    full, exact = scores(ImageOptions())
    best = set(np.argsort(-exact)[: int(0.3 * count)])
    for least in (side, 2 * side, 4 * side):
        seconds, found = scores(ImageOptions(jpeg_side=least))
        same = len(best & set(np.argsort(-found)[: len(best)])) / len(best)
        print(
            f"  jpeg_side {least}: {full / seconds:.2f} x as fast; scores differ by {np.abs(found - exact).mean():.4f} on "
            f"average, {np.abs(found - exact).max():.4f} at most, correlation {np.corrcoef(found, exact)[0, 1]:.5f}; "
            f"{same:.1%} of the top 30 % the same"
        )


def bench_captions():
    rng = np.random.default_rng(0)
    words = np.array(["a", "cat", "on", "the", "sofa", "photo", "of", "Blue", "Kleid", "für", "猫", "2019", "XXL"])
    column = pa.array([" ".join(rng.choice(words, 12)) for _ in range(20_000)])
    large = pa.concat_arrays([column] * 60)
    fast = rates(len(large), {"": lambda: check_captions(large)})[""]
    plain = rates(len(column), {"": lambda: [(len(t.split()), len(t)) for t in column.to_pylist()]})[""]
    print(f"captions checked and counted per CPU-second: {fast / 1e6:.2f} M, {fast / plain:.1f} x Python")
    print(f"languages per CPU-second: {rates(len(column), {'': lambda: detect_languages(column)})['']:.0f}")


if __name__ == "__main__":
    bench_images()
    bench_run()
    bench_scaled()
    bench_captions()
