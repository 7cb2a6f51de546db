"""A kind of captions is one file and one line: a toy kind, registered here, is in captions, gates, mix, shards and SQL."""

import json
from typing import ClassVar

import pytest

from curate.base import registry
from curate.base.errors import RecipeError
from curate.captions.gates.gate import Relation
from curate.captions.kinds import registry as kinds
from curate.captions.kinds.kind import CaptionKind
from curate.captions.kinds.prompts import Form
from curate.llm import openai
from curate.llm.engine import Request
from tests import kit
from tests.kit import llm_server as servers
from tests.kit.captioned import ask, kept_samples
from tests.kit.llm_server import FaultServer

TEMPLATE = "[user]\nWhat is in it? <caption>{caption}</caption>"


class Tags(CaptionKind):
    """Tags of a caption: each style is a language that they are written in, of any name."""

    key: ClassVar[str] = "tag"
    kind: ClassVar[str] = "tags"
    styles_key: ClassVar[str] = "sets"
    relation: ClassVar[Relation] = "seen"
    form: ClassVar[Form] = Form("tags", "v1", data=("caption",))

    sets: tuple[str, ...] = ("plain",)

    def drafts(self, rows, seed):
        template = self.load_template()
        for uid, caption, count in zip(*(rows[c].to_pylist() for c in ("uid", "caption", "per_row")), strict=True):
            for style in self.sets:
                yield count, Request(uid, self.kind, style, 0, messages=template.messages(caption=caption))

    def text_of(self, answer, style):
        return answer.strip().lower()

    @classmethod
    def json_value(cls, texts):
        return texts[0].text.split(", ") if texts else []


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(servers, "echo", lambda text: "no no no no" if "1</caption>" in text else " Dog, Ball")
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, Tags))
    registry._load.cache_clear()
    with FaultServer() as server:
        yield server
    registry._load.cache_clear()


@pytest.mark.thorough
def test_a_kind_is_one_file_and_one_line(server, tmp_path):
    (tmp_path / "tags.txt").write_text(TEMPLATE)
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(40), 2)
    captions = {
        "engines": {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}},
        "tag": {"engine": "llm", "template": str(tmp_path / "tags.txt")},
        "output": {"mix": {"tags": 0.5}, "syn_json": True},
    }
    done = kit.run_local(kit.recipe_of(path, captions=captions), tmp_path / "out")
    kit.conserved(done)
    rows = done.table("captions").to_pylist()
    verdicts = {("tags", "plain", "dog, ball", "passed"), ("tags", "plain", "no no no no", "repetition")}
    assert {(row["kind"], row["style"], row["text"], row["gate"]) for row in rows} == verdicts
    texts, failed = [], 0
    for files in kept_samples(done.folder).values():
        fields = json.loads(files["json"])["captions"]
        assert fields["tags"] in ([], ["dog", "ball"])
        failed += not fields["tags"]
        # MobileCLIP's loader draws one of the texts: the original, if none passed
        synthetic = ["dog, ball"] if fields["tags"] else [fields["original"]]
        assert json.loads(files["syn.json"]) == {"syn_text": synthetic}
        texts.append(files["txt"].decode())
    assert failed > 1 and 0.2 < texts.count("dog, ball") / len(texts) < 0.7
    (work,) = ask(done.folder, "caption_work")
    assert (work["kind"], work["requests"], work["replaced"]) == ("tags", len(rows), texts.count("dog, ball"))
    assert "tags" in {row["kind"] for row in ask(done.folder, "caption_styles")}


@pytest.mark.thorough
def test_its_keys_are_known(server):
    engines = {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}}
    twice = [{"engine": "llm"}, {"engine": "llm"}]
    for section, message in [
        ({"tag": {"engine": "llm", "stes": []}}, r"captions\.tag\.stes: unknown key; did you mean 'sets'"),
        ({"tga": {"engine": "llm"}}, r"captions\.tga: unknown key; did you mean 'tag'"),
        ({"tag": twice}, r"captions\.tag\.1\.sets: 'plain' is also written by captions\.tag\.0"),
    ]:
        with pytest.raises(RecipeError, match=message):
            kit.recipe_of("a.tar", captions={"engines": engines, **section})


def test_without_it_the_key_is_unknown():
    with pytest.raises(RecipeError, match=r"captions\.tag: unknown key"):
        kit.recipe_of("a.tar", captions={"tag": {"engine": "llm"}})
