"""All measurements, one after another, printed as ratios in one run: `python -m tests.bench --data FOLDER`.

FOLDER holds `laion_urls_10k.parquet` (column TEXT), `metadata_396k.json.gz` and `photos.tar`, or files of their kind. About
half an hour; nothing else should run meanwhile. `--run DIR`, a finished run of a million rows or so, adds the named queries.
"""

import argparse
import subprocess
import sys
from pathlib import Path


def main():
    """Runs each measurement as a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    data = options.data
    captions, metadata = str(data / "laion_urls_10k.parquet"), str(data / "metadata_396k.json.gz")
    for name, given in (
        ("bench_match", ["--data", str(data)]),
        ("bench_languages", ["--data", str(data)]),
        ("bench_shards", []),
        ("bench_emit", []),
        ("bench_image", []),
        ("bench_lock", []),
        ("bench_clip", ["--photos", str(data / "photos.tar")]),
        ("bench_signals", ["--photos", str(data / "photos.tar")]),
        ("bench_near", ["--data", str(data)]),
        ("bench_demo_near", []),
        ("bench_gates", ["--data", str(data)]),
        ("bench_repeat", []),
        ("bench_start", ["--metadata", metadata]),
        ("bench_text", ["--captions", captions, "--metadata", metadata]),
        ("bench_metadata", ["--megabytes", "200"]),
        *([("bench_sql", [str(options.run)])] if options.run else []),
        ("bench_whatif", ["--captions", captions, "--metadata", metadata]),
    ):
        print(f"\n== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"tests.bench.{name}", *given], check=True)


if __name__ == "__main__":
    main()
