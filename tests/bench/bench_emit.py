"""Emitting kept samples against a copy by header index and webdataset's writer: `python -m tests.bench.bench_emit`.

A pool of 6,000 samples (a JPEG of some 55 KB, a caption, img2dataset's json) is made in a temporary folder, as one tar and as
6 (img2dataset's hold 10,000 samples), and a run over it keeps every sample, in as many shards. Printed are CPU seconds (user and system) of this process for writing them, medians and ratios
of several rounds in turn:

- emit: `curate.emit.output_format.emit_shard`, from the tables of the run folder: tars with completed json, sidecars, stats;
- copy: what copies the tars without looking into any member: `index_tar`, and `TarWriter.add` of each member as a view, into
  files of the run's store, which hashes what it writes as it does for emit;
- plain copy: the same into plain files, without a hash;
- bare: the tars as they lie, header and padding included, by `pread` and `write` of each member, at offsets known beforehand;
- ShardWriter: webdataset's reader and writer, with the same samples and no decoding.
"""

import gc
import hashlib
import io
import json
import os
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import webdataset
from PIL import Image

from curate.base.process import Cache
from curate.decide.select_rows import draw_rows
from curate.decide.settings import DecideSettings
from curate.emit.layout import Layout
from curate.emit.output_format import emit_shard
from curate.emit.settings import EmitSettings
from curate.pool.plan import make_plan
from curate.recipe.recipe import parse_recipe
from curate.run.context import RunContext
from curate.store.store import RunStore
from curate.tar.byte_sources import open_source
from curate.tar.index import index_tar
from curate.tar.writer import TarWriter
from tests import kit
from tests.bench.bench_shards import cpu_seconds
from tests.emit.layouts import lay_out
from tests.kit import decide_in_process

POOLS = ((1, 6000), (6, 1000))  # tars and samples in each
ROUNDS = 9
Span = tuple[int, int]


def make_pool(folder, shards, samples, width=448, height=320):
    """Tars of valid JPEGs with random pixels; what follows the end marker makes the bytes of each one its own."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(50):
        out = io.BytesIO()
        noise = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        picture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.integers(-24, 25, (height, width, 3))
        Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
        images.append(out.getvalue())
    paths = [folder / f"{shard:05d}.tar" for shard in range(shards)]
    for shard, path in enumerate(paths):
        with open(path, "wb") as file, TarWriter(file) as tar:
            for i in range(samples):
                key = f"{shard:05d}{i:04d}"
                image = images[(shard * samples + i) % len(images)] + key.encode()
                caption = f"a picture of a green box on a table in front of a red wall, number {key}"
                tar.add(f"{key}.jpg", image)
                tar.add(f"{key}.json", _sidecar(key, caption, image))
                tar.add(f"{key}.txt", caption.encode())
    return paths


def _sidecar(key, caption, image):
    fields = {
        "url": f"https://example.com/images/2024/05/{key}.jpg",
        "caption": caption,
        "key": key,
        "status": "success",
        "error_message": None,
        "width": 448,
        "height": 320,
        "original_width": 448,
        "original_height": 320,
        "exif": '{"Image Software": "a camera", "Image DateTime": "2020:01:01 00:00:00"}',
        "sha256": hashlib.sha256(image).hexdigest(),
    }
    return json.dumps(fields, indent=4).encode()


def plan_run(recipe, out):
    """A run folder that nothing claimed, and its units."""
    plan = make_plan(recipe)
    return RunContext(recipe, plan.pool, RunStore(str(out))), list(plan.units)


def decide_units(context, units):
    """How many rows of each measured unit are kept."""
    settings = DecideSettings.of(context)
    states = decide_in_process(settings, context, units)
    kept = [(state.unit, int(state.surviving.sum())) for state in states.elements]
    draw_rows(states, settings, states.ask("Unread", lambda *_: []), None, None)
    return kept


def make_run(pool, out, rows_per_shard):
    """A run folder with all tables that emitting reads; all rows are kept."""
    recipe = parse_recipe(
        {
            "input": [{"name": "pool", "format": "webdataset", "path": f"{pool}/*.tar"}],
            "measure": {"image": {"decode": False}},
            "output": {"rows_per_shard": rows_per_shard},
        }
    )
    context, units = plan_run(recipe, out)
    for unit in units:
        kit.measure(context, unit)
    return context, decide_units(context, units)


def emit(settings, kept):
    settings.store.delete("shards")
    settings = replace(settings, recent=Cache())
    layout = Layout.of({unit.index: rows for unit, rows in kept if rows}, settings.output.rows_per_shard)
    for shard in lay_out([unit for unit, _ in kept], layout):
        emit_shard(settings, shard, np.zeros(0, np.uint64))


def copy(paths, create):
    for path in paths:
        source = open_source(path)
        index = index_tar(source)
        with create(path.name) as file, TarWriter(file) as writer:
            for name, offset, size in zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True):
                writer.add(name, source.read(offset, size))


def member_spans(path):
    """Where the members lie: header, data and padding."""
    index = index_tar(open_source(path))
    lengths = (index.sizes + 511) // 512 * 512 + 512
    return list(zip((index.offsets - 512).tolist(), lengths.tolist(), strict=True))


def bare(spans, out):
    for path, found in spans.items():
        with open(path, "rb", buffering=0) as source, open(out / path.name, "wb") as file:
            fd = source.fileno()
            for offset, length in found:
                file.write(os.pread(fd, length, offset))
            file.write(bytes(1024))


def shard_writer(paths, out, rows_per_shard):
    samples = webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)
    with webdataset.ShardWriter(str(out / "%05d.tar"), maxcount=rows_per_shard, verbose=0) as writer:
        for sample in samples:
            writer.write({k: v for k, v in sample.items() if k == "__key__" or not k.startswith("__")})


def bench_pool(shards, samples):
    with tempfile.TemporaryDirectory() as name:
        pool, out = Path(name) / "pool", Path(name) / "out"
        pool.mkdir()
        out.mkdir()
        paths = make_pool(pool, shards, samples)
        context, kept = make_run(pool, Path(name) / "run", samples)
        rows = sum(count for _, count in kept)
        assert rows == shards * samples
        spans = {path: member_spans(path) for path in paths}
        size = sum(path.stat().st_size for path in paths)
        print(f"writing {rows:,} samples, {size / 1e6:,.0f} MB, in {shards} shards, CPU")
        works = {
            "emit": partial(emit, EmitSettings.of(context), kept),
            "copy": partial(copy, paths, lambda name: context.store.create(f"shards/{name}")),
            "plain copy": partial(copy, paths, lambda name: open(out / name, "wb", 1 << 18)),  # noqa: SIM115
            "bare": partial(bare, spans, out),
        }
        gc.freeze()  # as a run does
        rounds = [{title: cpu_seconds(work, 1) for title, work in works.items()} for _ in range(ROUNDS)]
        shutil.rmtree(out)
        out.mkdir()
        slow = cpu_seconds(partial(shard_writer, paths, out, samples), 1)
        for title in works:
            print(f"  {title:12} {median(times[title] for times in rounds) / rows * 1e6:6.1f} µs a sample")
        print(f"  ShardWriter  {slow / rows * 1e6:6.1f} µs a sample")
        print(
            f"emit / copy        {median(times['emit'] / times['copy'] for times in rounds):6.2f}  (at most 1.2 wanted)"
        )
        hashing = (times["copy"] - times["plain copy"] for times in rounds)
        rest = median((t["emit"] - h) / t["plain copy"] for t, h in zip(rounds, hashing, strict=True))
        print(f"the same, unhashed {rest:6.2f}")
        print(f"emit / bare        {median(times['emit'] / times['bare'] for times in rounds):6.2f}")
        print(f"ShardWriter / emit {slow / median(times['emit'] for times in rounds):6.2f}  (at least 4 wanted)")


def main():
    for shards, samples in POOLS:
        bench_pool(shards, samples)


if __name__ == "__main__":
    main()
