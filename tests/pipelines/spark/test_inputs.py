"""On a cluster, executors read copies of a recipe's small files, which are part of the run."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from curate.ask.verify import verify_run
from curate.store.manifest import read_manifest
from curate.store.store import RunStore
from pipelines.claim import claimed
from pipelines.driver import preflight, run
from pipelines.prepare import prepare
from tests import kit
from tests.pipelines.spark.contexts import stop

pytestmark = pytest.mark.runners


def write(folder):
    """A head over embeddings that the pool brings."""
    save_file({"weight": torch.ones(1, 4), "bias": torch.zeros(1)}, folder / "head.safetensors")
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    columns = {"url": [f"u{i}" for i in range(60)], "caption": ["a picture"] * 60}
    pq.write_table(pa.table(columns | {side: list(vectors) for side in ("image", "text")}), folder / "pool.parquet")
    measure = {
        "embeddings": {"name": "clip", "image": "image", "text": "text"},
        "heads": {"good": {"of": "clip", "path": str(folder / "head.safetensors")}},
    }
    return kit.recipe_of(
        str(folder / "pool.parquet"), "parquet", measure=measure, rules={"half": {"top": 0.5, "of": "good"}}
    )


def test_copies_travel(cluster, tmp_path):
    recipe = write(tmp_path)
    here = prepare(recipe, str(tmp_path / "here"))
    with claimed(here):
        run(here)
    assert not (tmp_path / "here/inputs").exists()
    stop()
    conf = ("--spark_conf=spark.executor.memory=512m", "--spark_conf=spark.ui.enabled=false")
    words = ("--runner=spark", f"--spark_master_url={cluster.url}", *conf)
    there = prepare(recipe, str(tmp_path / "there"), options=words)
    preflight(there)
    assert not (tmp_path / "there").exists()
    with claimed(there):
        (tmp_path / "head.safetensors").unlink()
        run(there)
    store = RunStore(str(tmp_path / "there"))
    [name] = store.files("inputs")
    assert name.endswith("/head.safetensors")
    assert name in [line.path for line in read_manifest(store)]
    for table in ("scores", "decisions"):
        name = f"tables/{table}/00000.parquet"
        assert store.read_bytes(name) == RunStore(str(tmp_path / "here")).read_bytes(name)
    assert verify_run(store.url)[1] == []
