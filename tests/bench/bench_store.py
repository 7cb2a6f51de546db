"""A run over tars on a server, against one over the same tars on a disk: `python -m tests.bench.bench_store`.

A web server on loopback answers each request after a delay, as an object store does. Printed are, of each run by `curate run`, the seconds,
and of the one over the server the requests and bytes for each tar, with the rows that it keeps: measured once, the kept ones read again
to be written. One GET for each tar is the least that there can be. With --out, printed are the requests for a run folder in S3 instead,
of a server of its own: how many more a unit takes, with a quarter of a shard.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import yaml

from curate.demo.pool import write_pool
from pipelines.claim import claim_folder
from pipelines.driver import run as run_pipeline
from pipelines.prepare import prepare
from tests.laws import pools
from tests.pool.range_server import Served, serving_ranges


def run(folder: Path, path: str, name: str, rule: str) -> float:
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


def main() -> None:
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


def report(kept: str, served: Served, local: float, remote: float, tars: int, size: int) -> None:
    """Print a line."""
    gets = served.gets(".tar")
    others = len(served.requests) - len(gets)
    print(
        f"kept: {kept:8} local {local:6.1f} s, server {remote:6.1f} s ({remote / local:.2f} times); a tar: {len(gets) / tars:.1f} GET of "
        f"{sum(count for _, count in gets) / size:.2f} times its bytes, {others / tars:.1f} other requests"
    )


def count_requests_of_a_folder() -> None:
    """Print how many more requests of each kind a unit takes, with a quarter of a shard."""
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    os.environ |= {"AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port())}
    os.environ |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"), "us-east-1")
    counts: Counter[str] = Counter()
    call = s3fs.S3FileSystem._call_s3

    async def counting(self: Any, method: str, *arguments: Any, **named: Any) -> Any:
        counts[method] += 1
        return await call(self, method, *arguments, **named)

    s3fs.S3FileSystem._call_s3 = counting
    fsspec.filesystem("s3").mkdir("bucket")
    found = []
    for tars in (16, 48):
        with tempfile.TemporaryDirectory() as name:
            path = pools.write_tars(Path(name) / "pool", pools.make_samples(tars * 20), tars)
            by = ["uid", "sha256", {"phash": {"distance": 2}}]
            sections: dict[str, Any] = {"measure": {"language": {}, "image": {"phash": True}}, "dedup": {"by": by}}
            recipe = pools.recipe_of(path, sample={"rows": tars * 10}, output={"rows_per_shard": 40}, **sections)
            prepared = prepare(recipe, f"s3://bucket/run{tars}", unit_size=1)
            counts.clear()
            claim_folder(prepared)
            run_pipeline(prepared)
        found.append((len(prepared.plan.units), Counter(counts)))
    (few, of_few), (many, of_many) = found
    each = {kind: (of_many[kind] - of_few[kind]) / (many - few) for kind in sorted(of_many)}
    print(f"{few} and {many} units; a unit: {', '.join(f'{kind} {n:.1f}' for kind, n in each.items())}")
    server.stop()


if __name__ == "__main__":
    main()
