"""A process keeps engines by the content of their files and keys, not by paths."""

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base import schema
from curate.captions.engines import identify_engines, open_engine
from curate.llm.engine import Request
from curate.recipe.recipe import parse_recipe

REQUEST = Request("0" * 32, "rewrite", "human", 0, prompt="a cat =>")


def captions_of(engine):
    source = {"name": "a", "format": "webdataset", "path": "a.tar"}
    rewrite = {"engine": "llm"}
    captions = parse_recipe({"input": source, "captions": {"engines": {"llm": engine}, "rewrite": rewrite}}).captions
    assert captions is not None
    return captions


def test_recorded_answers_that_change_are_read_again(tmp_path):
    path = tmp_path / "answers.parquet"
    captions = captions_of({"recorded": {"path": str(path), "model": "tiny"}})
    ids = identify_engines(captions)

    def answer_of(text):
        columns = {name: [None] for name in schema.ANSWERS.names}
        columns |= {"digest": [REQUEST.digest("tiny")], "answer": [text]}
        pq.write_table(pa.table(columns, schema=schema.ANSWERS), path)
        return open_engine(captions.engines["llm"], ids["llm"]).ask([REQUEST])[0].text

    assert [answer_of(text) for text in ("a cat", "a tabby cat")] == ["a cat", "a tabby cat"]
    engines = [open_engine(captions.engines["llm"], ids["llm"]) for _ in range(2)]
    assert engines[0] is engines[1]


def test_a_model_whose_files_change_is_another(tmp_path):
    captions = captions_of({"vllm": {"model": str(tmp_path)}})
    engines, names = [], []
    for weights in (b"one", b"two", b"one"):
        (tmp_path / "model.safetensors").write_bytes(weights)
        names.append(identify_engines(captions)["llm"])
        engines.append(open_engine(captions.engines["llm"], names[-1]))
    assert names[0] == names[2] != names[1] and engines[0] is engines[2] is not engines[1]


def test_another_key_is_another_engine(monkeypatch):
    captions = captions_of({"openai": {"base_url": "http://localhost:1/v1", "model": "tiny", "key": "SOME_KEY"}})
    found = []
    for key in ("one", "two", "one"):
        monkeypatch.setenv("SOME_KEY", key)
        found.append(open_engine(captions.engines["llm"], "tiny"))
    assert found[0] is found[2] is not found[1]
