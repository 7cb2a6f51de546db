"""A run over tars on a server, against one over the same tars on a disk: `python -m tests.bench.bench_store`.

A web server on loopback answers each request after a delay, as an object store does. Printed are, of each run by `curate run`, the seconds,
and of the one over the server the requests and bytes for each tar, with the rows that it keeps: measured once, the kept ones read again
to be written. One GET for each tar is the least that there can be. With --out, printed are the requests for a run folder in S3 instead,
of a server of its own: how many more a unit takes, with a quarter of a shard.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from curate.demo.pool import write_pool
from tests.kit.range_server import serving_ranges
from tests.kit.store_requests import count_each, sum_kinds


def run(folder, path, name, rule):
    """The seconds of a run."""
    recipe = {
        "input": {"name": "pool", "format": "webdataset", "path": path},
        "measure": {"image": {"phash": True}, "language": {}},
        "rules": {"some": rule},
        "max_failed": 1.0,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    begun = time.perf_counter()
    command = [sys.executable, "-m", "curate", "run", str(folder / f"{name}.yaml"), "--out", str(folder / name)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tars", type=int, default=8)
    parser.add_argument("--samples", type=int, default=500, help="in each tar")
    parser.add_argument("--delay", type=float, default=0.04, help="seconds before each answer")
    parser.add_argument("--out", action="store_true", help="requests for a run folder in S3")
    options = parser.parse_args()
    if options.out:
        count_requests_of_a_folder()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pool(folder / "pool", samples=options.tars * options.samples, seed=3, shards=options.tars)
        tars = sorted((folder / "pool").glob("*.tar"))
        size = sum(tar.stat().st_size for tar in tars)
        names = f"{{{tars[0].stem}..{tars[-1].stem}}}.tar"
        print(f"{len(tars)} tars, {size / 1e6:.1f} MB; {options.delay * 1000:.0f} ms a request")
        run(folder, f"{folder}/pool/{names}", "warm", "words > 2")
        for kept, rule in (("all", "words > 0"), ("a tenth", "hash(sha256) % 10 = 0"), ("none", "words > 1000")):
            local = run(folder, f"{folder}/pool/{names}", f"local {kept}", rule)
            with serving_ranges(folder / "pool", options.delay) as served:
                remote = run(folder, f"{served.url}/{names}", f"remote {kept}", rule)
            report(kept, served, local, remote, len(tars), size)


def report(kept, served, local, remote, tars, size):
    """Print a line."""
    gets = served.gets(".tar")
    others = len(served.requests) - len(gets)
    print(
        f"kept: {kept:8} local {local:6.1f} s, server {remote:6.1f} s ({remote / local:.2f} times); a tar: {len(gets) / tars:.1f} GET of "
        f"{sum(count for _, count in gets) / size:.2f} times its bytes, {others / tars:.1f} other requests"
    )


def count_requests_of_a_folder():
    """Print how many more requests of each kind a unit takes, with a quarter of a shard."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    each = count_each(8, 32)
    for (kind, name), number in each.items():
        if number:
            print(f"{kind:7} {name:40} {number:6.2f}")
    kinds = sorted({kind for kind, _ in each})
    print("a unit:", ", ".join(f"{kind} {sum_kinds(each, kind, without='-'):.2f}" for kind in kinds))


if __name__ == "__main__":
    main()
