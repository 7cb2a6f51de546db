"""Downloads a shard without a network: its rows are in order, each with its outcome, and its files appear together."""

import json
import threading
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from hashlib import sha256

import pyarrow as pa
import pytest

from curate.download.fetch import Fetcher, Outcome
from curate.download.rates import log_download, read_downloads
from curate.download.resize import Resized
from curate.download.retry_record import Retry
from curate.download.shard import download_shard, read_facts, read_previous_keys
from curate.download.shard_names import ENDINGS, OUTCOMES, shard_stem
from curate.download.source import UrlsSource
from curate.store.store import RunStore
from curate.tar.byte_sources import open_source
from curate.tar.index import index_tar
from tests.download.fake_transport import FakeTransport, fetcher

pytest.importorskip("exifread")

URLS = ["http://a/1", "http://a/2", "http://b/none", "nothing"]
CAPTIONS = ["a dog", None, "a cat", "a bird"]
ROWS = pa.table({"number": pa.array([1, 2, 3, 4], pa.int8()), "caption": CAPTIONS, "url": URLS})
WEB = {"http://a/1": b"image 1", "http://a/2": b"image 22"}
STEM = f"pool/{shard_stem(7)}"


def source(**keys):
    fixed = {"name": "web", "format": "urls", "path": "list.csv", "network": {"contact": "me@example.org"}}
    common = {"thread_count": 4, "timeout": 1.0, "number_sample_per_shard": 100}
    return UrlsSource.model_validate(fixed | common | keys)


def download(folder, rows=ROWS, by=None, resize=Resized, retry=None, **keys):
    by = by or fetcher(FakeTransport(WEB), robots="ignore")
    download_shard(rows, 7, source(**keys).placed_in(str(folder)), by, resize, retry)
    return RunStore(str(folder))


def members(store):
    tar = open_source(store.path(f"{STEM}.tar"))
    index = index_tar(tar)
    sizes = zip(index.names, index.offsets.tolist(), index.sizes.tolist(), strict=True)
    return {name: bytes(tar.read(offset, size)) for name, offset, size in sizes}


def test_a_shard(tmp_path):
    store = download(tmp_path)
    keys = [f"0000000000000070{row}" for row in range(4)]
    table = store.read_parquet(f"{STEM}.parquet")
    assert table.schema.names[:3] == ROWS.column_names and table.schema.names[-len(OUTCOMES) :] == OUTCOMES.names
    assert table.schema.field("number").type == pa.int8() and table["key"].to_pylist() == keys
    assert table["status"].to_pylist() == ["success", "success", "failed_to_download", "failed_to_download"]
    assert table["reason"].to_pylist() == [None, None, "http_404", "bad_url"]
    assert table["error_message"][2].as_py() == "http_404: 404" and table["attempts"].to_pylist() == [1] * 4
    files = members(store)
    assert list(files) == [f"{key}.{suffix}" for key in keys[:2] for suffix in ("jpg", "json", "txt")]
    assert files[f"{keys[1]}.jpg"] == b"image 22" and files[f"{keys[1]}.txt"] == b""
    described = json.loads(files[f"{keys[0]}.json"])
    assert described["sha256"] == sha256(b"image 1").hexdigest() and described["number"] == 1
    statistics = store.read_json(f"{STEM}_stats.json")
    assert statistics["status_dict"]["success"] == 2 and statistics["failed_to_download"] == 2
    facts = read_facts(store, STEM)
    assert (facts.urls, facts.came, facts.bytes, facts.reasons) == (4, 2, 15, {"bad_url": 1, "http_404": 1})
    assert store.exists(f"{STEM}_stats.json") and not store.complete_commit(STEM) and not store.files("tmp")


@pytest.mark.parametrize("url", ["{}", "memory://{}"])
def test_the_first_complete_shard_is_kept(tmp_path, url):
    """And returns its facts; its writer knows its digests."""
    web, store = source().placed_in(url.format(tmp_path)), RunStore(url.format(tmp_path))
    first, digests = download_shard(ROWS, 7, web, fetcher(FakeTransport(WEB), robots="ignore"), Resized)
    assert digests == {name: store.recorded(name) for name in (f"{STEM}{end}" for end in ENDINGS)}
    assert all(digest.is_of(store.digest(name)) for name, digest in digests.items())
    log_download(store, STEM, first, digests)
    assert read_downloads(store) == (first, digests) and first == read_facts(store, STEM)
    files = {name: store.read_bytes(name) for name in store.files("pool")}
    assert sorted(files) == sorted(digests)
    again, nothing = download_shard(ROWS, 7, web, fetcher(FakeTransport({}), robots="ignore"), Resized)
    assert (again, nothing) == (first, {}) and {name: store.read_bytes(name) for name in store.files("pool")} == files


class Odd(Fetcher):
    """Fetches slowly and with unexpected errors; counts concurrent fetches."""

    def __init__(self):
        self.begun, self.lock = 0, threading.Lock()

    def fetch(self, url, timeout):
        with self.lock:
            self.begun += 1
        if url.endswith("3"):
            raise ZeroDivisionError("by zero")
        return Outcome(url.encode(), None, 1, time.time())

    def expecting(self, urls):
        return nullcontext()


def test_reasons_for_refused_images(tmp_path):
    """For the hash in the list, by the resizer, and for unexpected errors, which end no shard."""
    hashes = [sha256(data).hexdigest() for data in (b"0", b"1", b"2", b"3")]
    urls = [f"http://a/{row}" for row in range(4)]
    rows = pa.table({"sha256": ["other", *hashes[1:]], "caption": ["a"] * 4, "url": urls})

    def resize(data):
        if data == b"3":
            raise KeyError("unforeseen")
        return Resized(None, error="Image decoding error: none" if data == b"1" else "image too small")

    by = fetcher(FakeTransport({url: url[-1].encode() for url in urls}), robots="ignore")
    store = download(tmp_path, rows, by, verify_hash=("sha256", "sha256"), resize=resize)
    table = store.read_parquet(f"{STEM}.parquet")
    assert table["reason"].to_pylist() == ["hash_mismatch", "served_no_image", "too_small", "lost"]
    fetched, resized = "failed_to_download", "failed_to_resize"
    assert table["status"].to_pylist() == [fetched, resized, resized, fetched]
    assert table["detail"].to_pylist()[3] == "KeyError: 'unforeseen'" and table["sha256"].null_count == 4
    assert members(store) == {}
    rows = rows.drop_columns(["sha256"])
    table = download(tmp_path / "odd", rows, Odd()).read_parquet(f"{STEM}.parquet")
    assert table["reason"].to_pylist() == [None, None, None, "lost"]
    assert table["error_message"][3].as_py() == "lost: ZeroDivisionError: by zero"


def test_rows_that_are_tried_again(tmp_path):
    store = download(tmp_path, retry=Retry(1, (0, 1, 2, 3), ("1", "2", "3", "4"), (3, 1, 2, 1)))
    table = store.read_parquet(f"{STEM}.parquet")
    assert table["previous_key"].to_pylist() == ["1", "2", "3", "4"] and table["attempts"].to_pylist() == [4, 2, 3, 2]
    assert read_previous_keys(store, STEM, table["key"].to_pylist()[1:3]) == ["2", "3"]
    assert table["attempted"][0].as_py() <= datetime.now(UTC)
