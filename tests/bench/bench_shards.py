"""Reading and copying shards against webdataset, tarfile and a bare copy: `python -m tests.bench.bench_shards`.

A pool of 20 tars of 1,000 samples (20 KB of random bytes, a caption, a json) is made in a temporary folder. Printed are
the best of three, in CPU seconds (user and system) of this process, and ratios.
"""

import os
import random
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path

import webdataset

from curate.read.tar_samples import group_members
from curate.tar.byte_sources import open_source
from curate.tar.index import index_tar
from curate.tar.writer import TarWriter

SHARDS, SAMPLES = 20, 1000


def make_pool(folder):
    rng = random.Random(0)
    paths = [folder / f"{shard:05d}.tar" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        noise = rng.randbytes(1 << 20)
        with open(path, "wb") as file, TarWriter(file) as tar:
            for i in range(SAMPLES):
                key, at = f"{shard:05d}{i:04d}", rng.randrange(1 << 19)
                tar.add(f"{key}.jpg", noise[at : at + rng.randrange(10_000, 30_000)])
                tar.add(f"{key}.json", b'{"url": "https://example.com/%d.jpg", "width": 640, "height": 480}' % i)
                tar.add(f"{key}.txt", b"a picture of a green box on a table, number %d" % i)
    return paths


# ---------------------------------------------------------------- text-only scan: all keys and captions
def scan_index(paths):
    out = []
    for path in paths:
        source = open_source(path)
        index = index_tar(source)
        samples = group_members(index)
        offsets, sizes, read = index.offsets.tolist(), index.sizes.tolist(), source.read
        for key, i in zip(samples.keys, samples.txt, strict=True):
            out.append((key, str(read(offsets[i], sizes[i]), "utf-8")))
    return out


def scan_tarfile(paths):
    out = []
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".txt"):
                    file = tar.extractfile(member)
                    assert file is not None
                    out.append((member.name[:-4], file.read().decode()))
    return out


def read_webdataset(paths):
    return webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)


def scan_webdataset(paths):
    return [(sample["__key__"], sample["txt"].decode()) for sample in read_webdataset(paths)]


# ---------------------------------------------------------------- copying every other sample
def indexes(paths):
    found = []
    for path in paths:
        source = open_source(path)
        index = index_tar(source)
        found.append((path, index, group_members(index)))
    return found


def copy_writer(pool, out):
    for path, index, samples in pool:
        source = open_source(path)
        with open(out / path.name, "wb") as file, TarWriter(file) as tar:
            offsets, sizes = index.offsets.tolist(), index.sizes.tolist()
            starts, members = samples.starts.tolist(), samples.members.tolist()
            for row in range(0, len(samples), 2):
                for at in range(starts[row], starts[row + 1]):
                    i = members[at]
                    tar.add(f"{samples.keys[row]}.{samples.suffixes[at]}", source.read(offsets[i], sizes[i]))


def copy_bare(pool, out):
    for path, index, samples in pool:
        with open(path, "rb", buffering=0) as source, open(out / path.name, "wb") as file:
            fd = source.fileno()
            offsets, sizes = index.offsets.tolist(), index.sizes.tolist()
            starts, members = samples.starts.tolist(), samples.members.tolist()
            for row in range(0, len(samples), 2):
                for at in range(starts[row], starts[row + 1]):
                    i = members[at]
                    file.write(os.pread(fd, 512 + (sizes[i] + 511) // 512 * 512, offsets[i] - 512))
            file.write(bytes(1024))


def copy_webdataset(paths, out):
    with webdataset.ShardWriter(str(out / "%05d.tar"), maxcount=SAMPLES // 2, verbose=0) as writer:
        for i, sample in enumerate(read_webdataset(paths)):
            if i % 2 == 0:
                writer.write({k: v for k, v in sample.items() if k == "__key__" or not k.startswith("__")})


# ---------------------------------------------------------------- measuring
def cpu_seconds(work, times=3):
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, out = make_pool(folder), folder / "out"
        out.mkdir()
        assert sorted(scan_index(paths)) == sorted(scan_tarfile(paths)) == sorted(scan_webdataset(paths))
        rows = SHARDS * SAMPLES
        print(f"text-only scan of {rows} samples, CPU seconds (samples per second)")
        scans = (scan_index, scan_tarfile, scan_webdataset)
        scan = {work.__name__: cpu_seconds(partial(work, paths)) for work in scans}
        for title, seconds in scan.items():
            print(f"  {title:16} {seconds:7.3f} ({rows / seconds:9,.0f})  {seconds / scan['scan_index']:5.1f} x")
        pool = indexes(paths)
        print(f"  of it, per tar: index {index_ms(paths):.2f} ms, grouping {group_ms(pool):.2f} ms")
        print(f"copying {rows // 2} of them, CPU seconds")
        copy = {
            "copy_writer": cpu_seconds(lambda: copy_writer(pool, out)),
            "copy_bare": cpu_seconds(lambda: copy_bare(pool, out)),
            "copy_webdataset": cpu_seconds(lambda: copy_webdataset(paths, out), 2),
        }
        for title, seconds in copy.items():
            print(f"  {title:16} {seconds:7.3f}  {seconds / copy['copy_writer']:5.2f} x")


def index_ms(paths):
    def work():
        for path in paths:
            source = open_source(path)
            index_tar(source)

    return cpu_seconds(work) / len(paths) * 1000


def group_ms(pool):
    return cpu_seconds(lambda: [group_members(index) for _, index, _ in pool]) / len(pool) * 1000


if __name__ == "__main__":
    main()
