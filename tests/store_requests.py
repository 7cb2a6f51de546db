"""How many requests a unit takes of a run folder in S3, by what they are of: a run of few units against one of more."""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pipelines.claim import claim_folder
from pipelines.driver import run as run_pipeline
from pipelines.prepare import prepare
from tests.laws import pools
from tests.s3 import bucket_at, serving_s3
from tests.store_proxy import StoreProxy, store_proxy

Each = dict[tuple[str, str], float]  # by kind of request and of file: how many a unit takes


def count_each(few: int = 4, many: int = 12) -> Each:
    """Requests that each further unit takes, with a quarter of a shard: three passes of deduplication, and a sample."""
    with serving_s3() as url, store_proxy(url) as proxy, bucket_at(proxy.url) as bucket:
        of_few, of_many = _count(proxy, bucket, few), _count(proxy, bucket, many)
    return {key: (of_many[key] - of_few[key]) / (many - few) for key in sorted(of_few.keys() | of_many.keys())}


def sum_kinds(each: Each, *kinds: str, without: str = "shards/") -> float:
    """Of requests of these kinds, those of files that do not begin so."""
    return sum(number for (kind, name), number in each.items() if kind in kinds and not name.startswith(without))


def _count(proxy: StoreProxy, bucket: str, units: int) -> Counter[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = pools.write_tars(Path(folder) / "pool", pools.make_samples(units * 20), units)
        by = ["uid", "sha256", {"phash": {"distance": 2}}]
        sections: dict[str, Any] = {"measure": {"language": {}, "image": {"phash": True}}, "dedup": {"by": by}}
        recipe = pools.recipe_of(path, sample={"rows": units * 10}, output={"rows_per_shard": 40}, **sections)
        prepared = prepare(recipe, f"{bucket}/run{units}", unit_size=1)
        assert len(prepared.plan.units) == units
        proxy.requests.clear()
        claim_folder(prepared)
        run_pipeline(prepared)
    return Counter((request.kind, _shorten(request.name)) for request in proxy.requests)


def _shorten(name: str) -> str:
    """The kind of a file: numbers and what is random left out."""
    name = re.sub(r"^run\d+/?", "", name)
    name = re.sub(r"^tmp/steps/.*", "tmp/steps/LINE", name)
    return re.sub(r"\d+", "N", re.sub(r"[0-9a-f]{32}", "ID", name))
