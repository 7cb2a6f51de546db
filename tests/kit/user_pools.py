"""Small pools such as users have, by the format that reads them, each with its path."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.kit import encode, make_samples, picture, write_tars
from tests.kit.articles import ARTICLES, write_archives, write_folders
from tests.kit.crawls import draw_sites, info, pack, wat_records

URLS = [f"https://example.com/{i}.jpg" for i in range(5)]
TEXTS = [f"a red dog by a house, number {i}" for i in range(5)]


def _csv(path, names, *columns):
    lines = [names, *(",".join(f'"{value}"' for value in row) for row in zip(*columns, strict=True))]
    path.write_text("\n".join(line for line in lines if line) + "\n")
    return path


def _tars(folder):
    write_tars(folder / "pool/of/tars", make_samples(12), 2)
    return folder / "pool"


def _parquet(path, **columns):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def _images_in_parquet(folder):
    images = [{"bytes": encode(picture(i)), "path": f"{i}.jpg"} for i in range(5)]
    _parquet(folder / "data/train-00000.parquet", image=images, text=TEXTS)
    (folder / "data/README.md").write_text("A data set.")
    return folder / "data"


def _headless(folder):
    (folder / "lists").mkdir()
    rows = "".join(f"{text}\t{url}\t{i}\n" for i, (url, text) in enumerate(zip(URLS, TEXTS, strict=True)))
    (folder / "lists/cc3m.tsv.gz").write_bytes(gzip.compress(rows.encode()))
    return folder / "lists"


def _json_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _images(folder, suffix="jpg"):
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"{i}.{suffix}").write_bytes(encode(picture(i)))
    return [f"{i}.{suffix}" for i in range(5)]


def _images_with_texts(folder):
    for name, text in zip(_images(folder / "photos/mine", "JPG"), TEXTS, strict=True):
        (folder / f"photos/mine/{name}").with_suffix(".txt").write_text(text)
    return folder / "photos"


def _table_within(folder):
    names = _images(folder / "photos/mine")
    _csv(folder / "photos/list.csv", "photo,title", [f"mine/{name}" for name in names], TEXTS)
    (folder / "photos/a note.csv").write_text("a,b\n1,2\n")
    return folder / "photos"


def _table_beside(folder, names="filename,text", in_table=""):
    """Names are relative to the folder of images, or to the table's folder."""
    files = [f"{in_table}{name}" for name in _images(folder / "photos")]
    _csv(folder / "captions.csv", names, files, TEXTS)
    return folder / "photos"


def _table_alone(folder):
    _table_beside(folder, "file,caption", "photos/")
    return folder / "captions.csv"


def _imagefolder(folder):
    names = _images(folder / "a/train")
    rows = [{"file_name": name, "text": text} for name, text in zip(names, TEXTS, strict=True)]
    _json_lines(folder / "a/train/metadata.jsonl", rows)
    return folder / "a"


def _crawl(folder):
    (folder / "crawl").mkdir()
    records = [record for n, site in enumerate(draw_sites(3)) for record in wat_records(site, n)]
    pack(folder / "crawl/CC-MAIN-00000.warc.wat.gz", [info("a.wat.gz"), *records])
    return folder / "crawl"


def _run(folder):
    """The files of a run as seen before it is opened."""
    write_tars(folder / "first/shards", make_samples(12), 1)
    (folder / "first/run.json").write_text("{}")
    return folder / "first"


JSON = [{"url": url, "caption": text, "more": {"a": 1}} for url, text in zip(URLS, TEXTS, strict=True)]
# By name: a function that writes it to a folder and returns its path, and the format that reads it
KINDS = {
    "tars": (_tars, "webdataset"), "run": (_run, "run"), "crawl": (_crawl, "commoncrawl"),
    "images_with_texts": (_images_with_texts, "files"), "images_with_a_table": (_table_within, "files"),
    "images_beside_a_table": (_table_beside, "files"), "table_of_images": (_table_alone, "files"),
    "imagefolder": (_imagefolder, "files"), "images_in_parquet": (_images_in_parquet, "parquet"),
    "urls_in_parquet": (
        lambda folder: _parquet(folder / "part-0.snappy.parquet", URL=URLS, TEXT=TEXTS, similarity=[0.3] * 5), "parquet"
    ),
    "titles_in_parquet": (lambda folder: _parquet(folder / "a.parquet", URL=URLS, title=TEXTS, lang=["en"] * 5), "parquet"),
    "csv_of_urls": (lambda folder: _csv(folder / "list.csv", "link,title", URLS, TEXTS), "urls"),
    "headless_tsv_of_urls": (_headless, "urls"),
    "json_lines_of_urls": (lambda folder: _json_lines(folder / "list.jsonl", JSON), "urls"),
    "articles": (lambda folder: write_folders(folder / "pmc", ARTICLES[:3]), "pmc"),
    "archives_of_articles": (lambda folder: write_archives(folder / "old", ARTICLES[:3]), "pmc"),
}  # fmt: skip
