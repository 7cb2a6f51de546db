"""Downloads through the pipeline against img2dataset alone, from the same server on loopback: `python -m tests.bench.bench_urls`.

Both fetch the same URLs with as many threads in one process (the pipeline's are those of two shards at once), keep the bytes as they
came, and write shards of 1,000; the pipeline asks for robots.txt and opt-outs, and decides, emits and publishes besides. Each is a
command of its own, in turn, with all that it imports; a few URLs come first, so that files and servers are warm. Servers leave a
connection open where a client lets them, as most do: img2dataset asks them to close it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit import encode, picture
from tests.kit.web import Web, running

HOSTS, THREADS, IMAGES = 16, 64, 200
_ALONE = """
import img2dataset
if __name__ == "__main__":
    img2dataset.download(**{options!r})
"""


def timed(command):
    """Wall and CPU seconds of a command."""
    began = time.monotonic()
    environment = os.environ | {
        "NO_ALBUMENTATIONS_UPDATE": "1"
    }  # which asks the package index, and is not what is timed
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime


def serve(images, keeps):
    """Serve images until killed; prints the port."""
    web = Web({str(i): encode(picture(i, 400)) for i in range(images)}, HOSTS)
    web.keeps = lambda _: keeps
    with running(web):
        print(web.port, flush=True)
        time.sleep(3600)


def downloading(folder):
    """Seconds from the beginning of the first shard to the end of the last, as both sides' statistics tell."""
    facts = [json.loads(path.read_bytes()) for path in folder.glob("*_stats.json")]
    return float(max(one["end_time"] for one in facts) - min(one["start_time"] for one in facts))


def compare(port, count):
    """Seconds, CPU seconds and seconds of downloads of img2dataset alone, and of the pipeline, over so many URLs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = [f"http://127.0.0.{i % HOSTS + 1}:{port}/image/{i % IMAGES}" for i in range(count)]
        captions = [f"a picture of number {i}" for i in range(count)]
        pq.write_table(pa.table({"url": urls, "caption": captions}), folder / "list.parquet")
        network = {"contact": "me@example.org", "allow_networks": ["127.0.0.0/8"], "per_host": THREADS}
        source = {"name": "web", "format": "urls", "path": f"{folder}/list.parquet", "thread_count": THREADS // 2}
        recipe = {"input": source | {"network": network}, "measure": {"image": {"decode": False}}}
        (folder / "recipe.yaml").write_text(json.dumps(recipe))
        alone = {
            **{
                "url_list": f"{folder}/list.parquet",
                "input_format": "parquet",
                "url_col": "url",
                "caption_col": "caption",
            },
            **{"output_format": "webdataset", "output_folder": f"{folder}/alone", "number_sample_per_shard": 1000},
            **{"processes_count": 1, "thread_count": THREADS, "disable_all_reencoding": True},
            **{"compute_hash": "sha256", "enable_wandb": False},
        }
        (folder / "alone.py").write_text(_ALONE.format(options=alone))
        theirs = timed([sys.executable, f"{folder}/alone.py"])
        ours = timed([sys.executable, "-m", "curate", "run", f"{folder}/recipe.yaml", "--out", f"{folder}/run"])
        return (*theirs, downloading(folder / "alone")), (*ours, downloading(folder / "run/pool"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--closing", action="store_true", help="servers close each connection after its answer")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, not options.closing)
        return
    words = ["--serve", str(IMAGES), *(["--closing"] if options.closing else [])]
    server = subprocess.Popen([sys.executable, "-m", __spec__.name, *words], stdout=subprocess.PIPE, text=True)
    assert server.stdout
    port = int(server.stdout.readline())
    try:
        compare(port, 200)
        ratios = []
        for turn in range(options.turns):
            (theirs, their_cpu, their_downloads), (ours, our_cpu, our_downloads) = compare(port, options.urls)
            ratios.append((theirs / ours, their_downloads / our_downloads))
            print(
                f"turn {turn}: img2dataset alone {options.urls / theirs:6.0f} images/s ({their_cpu:5.1f} s of CPU), "
                f"curate, whole run {options.urls / ours:6.0f} images/s ({our_cpu:5.1f} s of CPU): {ratios[-1][0]:.2f} x; "
                f"downloads alone {options.urls / their_downloads:6.0f} and {options.urls / our_downloads:6.0f} images/s: "
                f"{ratios[-1][1]:.2f} x",
                flush=True,
            )
        whole, downloads = map(statistics.median, zip(*ratios, strict=True))
        print(f"median: {whole:.2f} x; downloads alone {downloads:.2f} x")
    finally:
        server.kill()


if __name__ == "__main__":
    main()
