"""The number of requests per unit to a run folder in S3, by kind and file, by runs of few and of more units."""

import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from curate.store import local
from curate.store.layout import MANIFEST_FILE, SUCCESS_FILE
from pipelines.claim import claim_folder
from pipelines.driver import run as run_pipeline
from pipelines.prepare import prepare
from tests import kit
from tests.kit.s3 import bucket_at, serving_s3
from tests.kit.store_proxy import store_proxy

Each = dict[tuple[str, str], float]  # by kind of request and of file: the number per unit


def make_rich(folder, units):
    """A recipe with this many units, three passes of deduplication, and a sample; a unit fills a quarter of a shard."""
    path = kit.write_tars(folder / "pool", kit.make_samples(units * 20), units)
    by = ["uid", "sha256", {"phash": {"distance": 2}}]
    measure = {"language": {}, "image": {"phash": True}}
    sample, output = {"rows": units * 10}, {"rows_per_shard": 40}
    return kit.recipe_of(path, measure=measure, dedup={"by": by}, sample=sample, output=output)


def count_each(few=4, many=12, make=make_rich):
    """Requests that each further unit takes, of what `make` writes into a folder: a recipe of so many units, or near.

    A LIST is one for each name. A log has no objects more for what is written within a second, whatever the units.
    """
    patched = pytest.MonkeyPatch.context()
    with serving_s3() as url, store_proxy(url) as proxy, bucket_at(proxy.url) as bucket, patched as patch:
        patch.setattr(local, "_BETWEEN", 0.0)
        proxy.page = 1
        (one, of_few), (other, of_many) = (_count(proxy, bucket, make, units) for units in (few, many))
    return {key: (of_many[key] - of_few[key]) / (other - one) for key in sorted(of_few.keys() | of_many.keys())}


def sum_kinds(each, *kinds, without="shards/"):
    """The sum of requests of these kinds, except for files that begin with `without`."""
    return sum(number for (kind, name), number in each.items() if kind in kinds and not name.startswith(without))


def _count(proxy, bucket, make, units):
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(make(Path(folder), units), f"{bucket}/run{time.monotonic_ns()}", unit_size=1)
        proxy.requests.clear()
        claim_folder(prepared)
        run_pipeline(prepared)
        asked = [*proxy.requests]
        check_files(prepared.context.store)
    requests = Counter((request.kind, _shorten(request.name)) for request in asked)
    return len(prepared.plan.units), requests


def check_files(store):
    """Check that a published run has no files except those in its manifest."""
    listed = set(store.read_parquet(MANIFEST_FILE)["path"].to_pylist())
    assert {*store.files()} == {*listed, MANIFEST_FILE, SUCCESS_FILE}


def _shorten(name):
    """The kind of a file: its name without numbers and random parts."""
    name = re.sub(r"^run\d+/?", "", name)
    name = re.sub(r"^tmp/steps/.*", "tmp/steps/LINE", name)
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{32}", "ID", name))
