"""Rows of a WAT against a bare loop of FastWARC and orjson, and against cc2dataset's own function, in one run.

    python -m tests.bench.bench_crawl [--gigabytes 1] [--cc2dataset PYTHON]

The WAT is drawn: pages with as many links as real ones have (32 images, ten of them with an alt-text, and 195 others),
about 35 kB of JSON each; gigabytes are of the packed file. `--cc2dataset` is the Python of an environment that has
cc2dataset, whose pyspark and pandas it need not have. Each reader goes through the file once, in turn, by one thread.
"""

import argparse
import gzip
import random
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import orjson
import pyarrow as pa

from curate.pool.crawl.format import CommonCrawlInput, CrawlSource
from tests.kit.crawls import Site, image, info, wat_records

PEER = """
import sys, types
for name in ("pyspark", "pyspark.sql", "pyspark.sql.functions"):
    module = sys.modules[name] = types.ModuleType(name)
    module.SparkContext = module.SparkSession = module.rand = None
from loguru import logger
logger.remove()
from cc2dataset.main import process_wat
print(sum(1 for _ in process_wat(sys.argv[1], "image")))
"""


def draw_page(chance, number):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"

    def word():
        return "".join(chance.choices(letters, k=chance.randrange(2, 10)))

    links = []
    for _ in range(227):
        path = f"/{word()}/{word()}-{word()}-{word()}.html"
        links.append({"path": "A@/href", "url": path, "text": f"{word()} {word()} {word()}"})
    for place in chance.sample(range(227), 32):
        alt = " ".join(word() for _ in range(chance.randrange(2, 9))) if chance.random() < 0.31 else ""
        links[place] = image(f"https://{word()}.example.com/{word()}/{word()}_{word()}.jpg?w=300", alt)
    head = {
        "Title": f"{word()} {word()}",
        "Metas": [{"name": "robots", "content": "index"}, {"name": word(), "content": word()}],
    }
    headers = {"Content-Type": "text/html; charset=utf-8", "Server": "nginx", "Date": word(), "X-Cache": word()}
    return Site(f"https://www.{word()}.org/{word()}/{number}", links, head, headers)


def write_wat(path, gigabytes):
    """Write a WAT of drawn pages, of which 400 differ in all; return how many pages it has."""
    chance = random.Random(0)
    drawn = [[gzip.compress(record, 6, mtime=0) for record in wat_records(draw_page(chance, n), n)] for n in range(400)]
    pages = 0
    with path.open("wb") as file:
        file.write(gzip.compress(info("x")))
        while file.tell() < gigabytes * 1e9:
            file.write(b"".join(drawn[pages % len(drawn)]))
            pages += 1
    return pages


def bare(path):
    """The bare loop: each record of JSON about a response is parsed."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    parsed = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.metadata, parse_http=False):
            content = record.reader.read()
            if b'"response"' in content:
                parsed += "Envelope" in orjson.loads(content)
    return parsed


def ours(path):
    source = CrawlSource.model_validate({"name": "cc", "format": "commoncrawl", "path": str(path)})
    kind = CommonCrawlInput()
    parts = kind.plan(source, (), False).parts
    return sum(len(batch.columns["url"]) for part in parts for batch in kind.read(source, part, pa.schema([]), None))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--cc2dataset", default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.warc.wat.gz")
        pages = write_wat(path, options.gigabytes)
        print(f"{path.stat().st_size / 1e6:,.0f} MB, {pages:,} pages")
        path.read_bytes()  # from the disk, for all of them
        readers = {"bare": bare, "curate": ours}
        if options.cc2dataset:
            words = [options.cc2dataset, "-c", PEER, str(path)]
            readers["cc2dataset"] = lambda _: int(
                subprocess.run(words, check=True, capture_output=True, text=True).stdout
            )
        seconds = {}
        for name, read in readers.items():
            began = time.perf_counter()
            rows = read(path)
            seconds[name] = time.perf_counter() - began
            print(
                f"{name:<12}{seconds[name]:>8.1f} s  {path.stat().st_size / 1e6 / seconds[name]:>6.1f} MB/s  {rows:,}"
            )
        for name, value in seconds.items():
            print(f"speed of {name} by that of the bare loop: {seconds['bare'] / value:.2f}")
        hours = seconds["curate"] / path.stat().st_size * 300e6 * 100_000 / 3600
        print(f"a crawl of 100,000 WATs of 300 MB: {hours:,.0f} core-hours by this")
        print(f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
