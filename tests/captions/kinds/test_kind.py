"""A kind of captions is one file and one line: a toy kind, registered here, is in captions, gates, mix, shards and SQL."""

import json
import tarfile
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
from tests.kit.llm_server import FaultServer
from tests.kit.written_runs import run_query

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
    done = kit.run_beam(kit.recipe_of(path, captions=captions), tmp_path / "out")
    kit.conserved(done)
    rows = done.table("captions").to_pylist()
    assert {(row["kind"], row["style"], row["text"], row["gate"]) for row in rows} == {
        ("tags", "plain", "dog, ball", "passed"),
        ("tags", "plain", "no no no no", "repetition"),
    }
    texts = []
    synthetic, expected = {}, {}  # MobileCLIP's loader draws one of the texts: where none passed, the original is there
    for shard in done.folder.glob("shards/*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                if member.name.endswith(".txt"):
                    texts.append(file.read().decode())
                elif member.name.endswith(".syn.json"):
                    synthetic[member.name.partition(".")[0]] = json.loads(file.read())["syn_text"]
                elif member.name.endswith(".json"):
                    fields = json.loads(file.read())["captions"]
                    assert fields["tags"] in ([], ["dog", "ball"])
                    expected[member.name.partition(".")[0]] = ["dog, ball"] if fields["tags"] else [fields["original"]]
    assert synthetic == expected and {len(texts) for texts in expected.values()} == {1}
    assert sum(texts != ["dog, ball"] for texts in expected.values()) > 1
    assert 0.2 < texts.count("dog, ball") / len(texts) < 0.7
    (work,) = run_query(str(done.folder), "SELECT kind, requests, replaced FROM caption_work", {}).rows
    assert work == ("tags", len(rows), texts.count("dog, ball"))
    styles = run_query(str(done.folder), "caption_styles", {})
    assert "tags" in {dict(zip(styles.names, row, strict=True))["kind"] for row in styles.rows}


@pytest.mark.thorough
def test_its_keys_are_known(server):
    engines = {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}}
    with pytest.raises(RecipeError, match=r"captions\.tag\.stes: unknown key; did you mean 'sets'"):
        kit.recipe_of("a.tar", captions={"engines": engines, "tag": {"engine": "llm", "stes": []}})
    with pytest.raises(RecipeError, match=r"captions\.tga: unknown key; did you mean 'tag'"):
        kit.recipe_of("a.tar", captions={"engines": engines, "tga": {"engine": "llm"}})
    twice = [{"engine": "llm"}, {"engine": "llm"}]
    with pytest.raises(RecipeError, match=r"captions\.tag\.1\.sets: 'plain' is also written by captions\.tag\.0"):
        kit.recipe_of("a.tar", captions={"engines": engines, "tag": twice})


def test_without_it_the_key_is_unknown():
    with pytest.raises(RecipeError, match=r"captions\.tag: unknown key"):
        kit.recipe_of("a.tar", captions={"tag": {"engine": "llm"}})
