"""Several sections for one kind of caption, each with its own engine, and the accounting by engine."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import yaml

from curate.ask.whatif.estimate import estimate
from curate.base.errors import RecipeError, RunError
from curate.captions.kinds.rewrite import load_pairs
from curate.cli.plan import plan
from curate.llm import openai
from curate.llm.engine import Answer
from curate.llm.recorded import RecordedEngine
from curate.recipe.recipe import parse_recipe
from curate.store.store import RunStore
from pipelines.prepare import prepare
from tests import kit
from tests.kit import Ran, conserved
from tests.kit import llm_server as servers
from tests.kit.captioned import ask, faithful, kept_samples
from tests.kit.llm_server import FaultServer, status
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).parents[2]

CHAT = "[user]\nSay this caption in other words: <caption>{caption}</caption>\nExamples:\n{examples}"


def say(text):
    """The servers' answers: a line as in LaCLIP to a completion; to a chat with the template above, one after empty lines."""
    if "<caption>" not in text:
        return faithful(text)
    return f"\n\nthere is {text.partition('<caption>')[2].partition('</caption>')[0].strip()}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(servers, "echo", say)


@pytest.fixture
def llm():
    with FaultServer(models=["tiny-llm"]) as server:
        yield server


@pytest.fixture
def api():
    with FaultServer(models=["other-llm"]) as server:
        yield server


def engine(server, **price):
    spec = {"base_url": server.base_url, "model": server.models[0], "attempts": 1, "timeout": 60}
    return {"openai": spec, "price": price}


@pytest.fixture
def captions(llm, api, tmp_path):
    """Two engines that both rewrite: one by completions, one by chats."""
    (tmp_path / "chat.txt").write_text(CHAT)
    chat = {"styles": ["human", "coco"], "prompt": "chat", "template": str(tmp_path / "chat.txt")}
    return {
        "engines": {"llm": engine(llm, input=1e6), "api": engine(api, input=2e6, output=1e6)},
        "rewrite": [
            {"engine": "llm", "styles": ["chat_a"], "batch": 7},
            {"engine": "api", **chat, "per_row": 2, "temperature": 0.5},
        ],
    }


@pytest.fixture
def path(tmp_path):
    return kit.write_tars(tmp_path / "tars", kit.make_samples(40), 2)


def recipe(path, captions, **sections):
    return kit.recipe_of(path, captions=captions, **{"max_failed": 1.0, **sections})


def by_style(run):
    """Counts of texts by style and model."""
    found = {}
    for row in run.table("captions").to_pylist():
        found.setdefault(row["style"], Counter())[row["model"]] += 1
    return found


def test_each_section_asks_its_engine_in_its_way(captions, llm, api, path, tmp_path):
    asked = recipe(path, captions)
    local, beam = kit.run_local(asked, tmp_path / "a"), kit.run_beam(asked, tmp_path / "b", reuse=tmp_path / "a")
    conserved(local)
    assert local.members == beam.members
    samples = kept_samples(tmp_path / "a")
    n = len(samples)
    assert by_style(local) == {"chat_a": {"tiny-llm": n}, "human": {"other-llm": 2 * n}, "coco": {"other-llm": 2 * n}}
    assert len(llm.asked) == n and len(api.asked) == 4 * n
    assert {(seen.path, seen.body["temperature"]) for seen in llm.asked} == {("/v1/completions", 0.9)}
    assert {(seen.path, seen.body["temperature"]) for seen in api.asked} == {("/v1/chat/completions", 0.5)}
    for files in samples.values():
        fields = json.loads(files["json"])["captions"]
        original = " ".join(fields["original"].split())
        assert set(fields["rewrite"]) <= {"chat_a", "human", "human_2", "coco", "coco_2"}
        for style, text in fields["rewrite"].items():
            assert text == (f"here you can see {original}" if style == "chat_a" else f"there is {original}")
    assert {style for files in samples.values() for style in json.loads(files["json"])["captions"]["rewrite"]} == {
        *("chat_a", "human", "human_2", "coco", "coco_2")
    }


def test_what_each_engine_took_is_told_apart(captions, llm, api, path, tmp_path):
    api.always = lambda handler: handler.reply(400, b"no") if "1<" in handler.seen.text else handler.answer()
    done = kit.run_local(recipe(path, captions | {"output": {"mix": {"rewrite": 0.5}}}), tmp_path / "a")
    conserved(done)
    rows = done.table("captions").to_pylist()
    works = {row["engine"]: row for row in ask(done.folder, "caption_work")}
    assert list(works) == ["api", "llm"]
    changed = Counter()
    for files in kept_samples(done.folder).values():
        text = files["txt"].decode()
        changed["llm"] += text.startswith("here you can see ")
        changed["api"] += text.startswith("there is ")
    for name, server, price in (("llm", llm, (1, 0)), ("api", api, (2, 1))):
        own = [row for row in rows if row["model"] == server.models[0]]
        good = sum(row["status"] == "ok" for row in own)
        work = works[name]
        assert (work["kind"], work["model"], work["requests"]) == ("rewrite", server.models[0], len(own))
        assert work["sent"] == len(server.asked) == len(own) and work["failed"] == len(own) - good
        assert work["passed"] == sum(row["gate"] == "passed" for row in own)
        assert (work["tokens_in"], work["tokens_out"]) == (11 * good, 3 * good)
        assert work["cost"] == pytest.approx(price[0] * 11 * good + price[1] * 3 * good)
        assert work["seconds"] > 0 and work["replaced"] == changed[name] > 0
    assert works["api"]["failed"] > 0
    card = RunStore(str(done.folder)).read_bytes("README.md").decode()
    for work in works.values():
        of = f"{work['passed']:,} of {work['requests']:,} texts passed, {work['replaced']:,} are in `.txt`"
        assert f"- rewrite by `{work['model']}`: {of}" in card


@pytest.mark.parametrize("ended_by", ["requests that fail", "a kill"])
def test_what_several_commands_sent_is_summed(ended_by, captions, llm, path, tmp_path):
    """A run that reuses all of it counts nothing."""
    only = {"engines": {"llm": captions["engines"]["llm"]}, "rewrite": captions["rewrite"][0] | {"batch": 1}}
    asked = recipe(path, only, max_failed=0.1)
    if ended_by == "a kill":
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(asked.model_dump(mode="json", exclude_none=True)))
        killed = threading.Event()

        def answer_twelve(handler):
            if len(llm.asked) > 12:
                killed.wait(300)
            handler.answer()

        llm.always = answer_twelve
        command = [sys.executable, "-m", "curate", "run", "r.yaml", "--out", "a"]
        with subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}) as running:
            wait_until(lambda: len(llm.asked) > 12, lambda: running.poll() is None)
            running.kill()
        killed.set()
        llm.always = None
    else:
        llm.always = lambda handler: handler.reply(400, b"no") if "7" in handler.seen.text else handler.answer()
        with pytest.raises(RunError, match=r"caption requests .* got no answer"):
            kit.run_local(asked, tmp_path / "a")
        llm.always = None
    before = len(llm.asked)
    done = kit.run_local(asked, tmp_path / "a")
    (work,) = ask(done.folder, "caption_work")
    lost = len(llm.asked) - work["sent"]  # answers that were on their way at the kill, one of each unit at most
    assert 0 <= lost <= (2 if ended_by == "a kill" else 0) and work["sent"] >= work["requests"]
    assert len(llm.asked) > before > work["sent"] / 5
    assert work["tokens_sent"] == 14 * work["requests"] == work["tokens_in"] + work["tokens_out"]
    assert work["cost"] == pytest.approx(11 * work["requests"])
    again = kit.run_local(recipe(path, only | {"output": {"mix": {"rewrite": 0.5}}}), tmp_path / "b", reuse=done.folder)
    [of_kind] = [row for row in ask(again.folder, "costs") if row["what"] == "rewrite"]
    assert [of_kind[name] for name in ("requests", "tokens", "tokens_each", "cost")] == [0, 0, 0, 0]


def test_a_prompt_and_examples_of_the_users(captions, llm, path, tmp_path):
    """A change asks again, by content and not by path; texts of other styles are cached."""
    (tmp_path / "prompt.txt").write_text("Differently:\n{source_1} => {target_1}\n{caption} =>")
    (tmp_path / "own.txt").write_text("".join(f"a photo of {i} => there is {i}\n" for i in range(9)))
    one = {
        "engine": "llm",
        "template": f"{tmp_path}/prompt.txt",
        "examples": {"own": f"{tmp_path}/own.txt"},
        "styles": ["own", "coco"],
    }
    first = kit.run_local(recipe(path, captions | {"rewrite": one}), tmp_path / "a")
    asked = len(llm.asked)
    assert by_style(first).keys() == {"own", "coco"}
    prompts = [seen.body["prompt"].split("\n") for seen in llm.asked]
    assert all(len(lines) == 3 and lines[0] == "Differently:" and lines[2].endswith(" =>") for lines in prompts)
    assert sum(lines[1].startswith("a photo of ") for lines in prompts) == asked / 2
    (tmp_path / "moved.txt").write_text((tmp_path / "own.txt").read_text())
    moved = one | {"examples": {"own": f"{tmp_path}/moved.txt"}}
    kit.run_local(recipe(path, captions | {"rewrite": moved}), tmp_path / "b", reuse=tmp_path / "a")
    keys = [run.run["keys"]["captions"] for run in (first, Ran(tmp_path / "b"))]
    assert len(llm.asked) == asked and keys[0] == keys[1]
    (tmp_path / "moved.txt").write_text("".join(f"photo of {i} => there is {i}\n" for i in range(9)))
    third = kit.run_local(recipe(path, captions | {"rewrite": moved}), tmp_path / "c", reuse=tmp_path / "b")
    assert len(llm.asked) == asked * 3 / 2 and third.run["keys"]["captions"] != keys[0]


def test_a_style_that_moves_to_another_section_is_not_asked_again(captions, llm, api, path, tmp_path):
    """If engine, prompt, and sampling are equal; also from several sections to one, and back."""
    one = {"engine": "llm", "styles": ["human", "coco", "chat_a"]}
    first = kit.run_local(recipe(path, captions | {"rewrite": one}), tmp_path / "a")
    asked = len(llm.asked)
    split = [{"engine": "llm", "styles": ["coco"], "batch": 3}, {"engine": "llm", "styles": ["human", "chat_a"]}]
    second = kit.run_local(recipe(path, captions | {"rewrite": split}), tmp_path / "b", reuse=tmp_path / "a")
    texts = [
        {(row["uid"], row["style"], row["prompt"], row["text"]) for row in run.table("captions").to_pylist()}
        for run in (first, second)
    ]
    assert texts[0] == texts[1] and len(llm.asked) == asked
    (work,) = ask(second.folder, "caption_work")
    assert (work["engine"], work["requests"], work["sent"]) == ("llm", asked, 0)
    moved = [{"engine": "api", "styles": ["coco"]}, {"engine": "llm", "styles": ["human", "chat_a"]}]
    third = kit.run_local(recipe(path, captions | {"rewrite": moved}), tmp_path / "c", reuse=tmp_path / "b")
    assert len(llm.asked) == asked and len(api.asked) == asked / 3  # another engine is asked, for its style alone
    assert by_style(third)["coco"] == {"other-llm": asked / 3}


def test_texts_are_held_against_their_own_section(captions, path, tmp_path):
    """A text that repeats an example fails by the examples of its own section's styles."""
    pairs = {style: {pair.target for pair in load_pairs(style)} for style in ("chat_a", "human", "coco")}
    told = iter([*pairs["chat_a"], *pairs["human"], *pairs["coco"]] * 99)
    engines = {name: {"recorded": {"path": str(tmp_path / "told"), "model": name}} for name in ("llm", "api")}
    asked = recipe(path, captions | {"engines": engines, "gates": {"off": ["names", "numbers", "length"]}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordedEngine, "answers", lambda self, asked: enumerate(Answer(next(told)) for _ in asked))
        done = kit.run_local(asked, tmp_path / "a")
    found = {True: 0, False: 0}
    for row in done.table("captions").to_pylist():
        own = ["chat_a"] if row["model"] == "llm" else ["human", "coco"]
        echoes = any(row["text"] in pairs[style] for style in own)
        assert ("echo_prompt" in row["failed"]) == echoes
        found[echoes] += 1
    assert min(found.values()) > 10


def test_a_list_of_one_is_the_section_itself(captions, path, tmp_path):
    section = captions["rewrite"][0]
    kit.run_local(recipe(path, captions | {"rewrite": section}), tmp_path / "a")
    assert prepare(recipe(path, captions | {"rewrite": [section]}), str(tmp_path / "a")).finished


def test_recaptions_of_several_sections_are_fused_and_mixed(captions, path, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "echo", lambda text: "a drawing of some thing" if "paragraph" in text else "a thing")
    captions = {
        "engines": captions["engines"],
        "recaption": [{"engine": "llm", "styles": ["short"]}, {"engine": "api", "styles": ["long"]}],
        "fuse": {"engine": "llm", "style": "long"},
        "translate": [{"engine": "llm", "languages": ["fr"]}, {"engine": "api", "languages": ["de", "ja"]}],
        "gates": {"off": ["names", "numbers", "language", "length", "echo_prompt", "repetition"]},
        "output": {"mix": {"recaption": 1.0}},
    }
    done = kit.run_local(recipe(path, captions), tmp_path / "a")
    samples = kept_samples(done.folder)
    n = len(samples)
    works = {(row["kind"], row["engine"]): row for row in ask(done.folder, "caption_work")}
    assert {of: work["requests"] for of, work in works.items()} == {
        **{("recaption", "llm"): n, ("recaption", "api"): n, ("fused", "llm"): n},
        **{("translation", "llm"): n, ("translation", "api"): 2 * n},
    }
    assert sum(works["recaption", engine]["replaced"] for engine in ("llm", "api")) == n
    assert min(works["recaption", engine]["replaced"] for engine in ("llm", "api")) > n / 5
    for files in samples.values():
        fields = json.loads(files["json"])["captions"]
        assert fields["recaption"] == ["a thing", "a drawing of some thing"]
        assert files["txt"].decode() in fields["recaption"]


def test_a_fused_text_is_of_the_section_that_writes_its_style(captions, llm, api, path, tmp_path):
    api.always = lambda handler: handler.reply(200, servers.completion("a long drawing of it"))
    captions = {
        "engines": captions["engines"],
        "recaption": [{"engine": "api", "styles": ["long"]}, {"engine": "llm", "styles": ["short"]}],
        "fuse": {"engine": "llm", "style": "long"},
        "gates": {"off": ["names", "numbers"]},
    }
    kit.run_local(recipe(path, captions), tmp_path / "a")
    fused = [seen.text for seen in llm.asked if "a long drawing of it" in seen.text]
    assert len(fused) == len(kept_samples(tmp_path / "a"))


def test_failures_of_one_engine_leave_the_texts_of_the_other(captions, llm, api, path, tmp_path):
    api.always = status(401, {"error": {"message": "key expired"}})
    done = kit.run_local(recipe(path, captions), tmp_path / "a")
    works = {row["engine"]: row for row in ask(done.folder, "caption_work")}
    assert works["api"]["failed"] == works["api"]["requests"] and works["llm"]["failed"] == 0
    assert len(api.asked) < works["api"]["requests"] / 2  # it is given up
    with pytest.raises(RunError, match=r"refused .*, such as stopped, since it answers no request: 401"):
        kit.run_local(recipe(path, captions, max_failed=0.1), tmp_path / "b")


def test_the_plan_tells_engines_apart_and_what_is_answered_already(captions, path, tmp_path):
    asked = recipe(path, captions)
    done = kit.run_local(asked, tmp_path / "a")
    n = len(kept_samples(done.folder))

    def planned(captions, out, reuse):
        prepared = prepare(recipe(path, captions), str(tmp_path / out), reuse and str(tmp_path / reuse))
        found = estimate(prepared.context, prepared.plan.units, prepared.metadata)
        assert found is not None
        return {one.engine: (one.requests, one.answered, one.cost > 0) for one in found.requests}

    assert planned(captions, "b", None) == {"llm": (n, 0, True), "api": (4 * n, 0, True)}
    assert planned(captions, "b", "a") == {"llm": (0, n, False), "api": (0, 4 * n, False)}
    more = [captions["rewrite"][0] | {"styles": ["chat_a", "chat_b"]}, captions["rewrite"][1]]
    assert planned(captions | {"rewrite": more}, "b", "a") == {"llm": (n, n, True), "api": (0, 4 * n, False)}
    (tmp_path / "a/_SUCCESS").unlink()
    assert planned(captions, "a", None) == {"llm": (0, n, False), "api": (0, 4 * n, False)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rewrite": [{"engine": "llm", "styles": ["human"]}, {"engine": "api", "styles": ["coco", "human"]}]},
            "captions.rewrite.1.styles: 'human' is also written by captions.rewrite.0; accepted: styles that no other",
        ),
        ({"rewrite": [{"engine": "llm"}, {"engine": "api"}]}, "captions.rewrite.1.styles: 'chat_a' is also written by captions.rewrite.0"),
        (
            {"translate": [{"engine": "llm", "languages": ["de"]}, {"engine": "llm", "languages": ["de"]}]},
            "captions.translate.1.languages: 'de' is also written by captions.translate.0; accepted: languages that",
        ),
        ({"recaption": [{"engine": "llm"}, {"engine": "api"}]}, "captions.recaption.1.styles: 'short' is also written by captions.recaption.0"),
        (
            {"rewrite": [{"engine": "llm", "styles": ["human"]}, {"engine": "apy", "styles": ["coco"]}]},
            "captions.rewrite.1.engine: no engine is named 'apy'; engines: llm, api",
        ),
        ({"rewrite": {"engine": "apy"}}, "captions.rewrite.engine: no engine is named 'apy'"),
        (
            {"rewrite": [{"engine": "llm", "styles": ["human"]}, {"engine": "api", "styles": ["loud"]}]},
            "captions.rewrite.1.styles: 'loud' is not a style; accepted: chat_a, chat_b, human, coco, and keys of examples",
        ),
        (
            {"rewrite": {"engine": "llm", "examples": {"own_2": "own.txt"}}},
            "captions.rewrite.styles: 'own_2' ends in a number, as the further captions of a style do",
        ),
        (
            {"rewrite": {"engine": "llm", "styles": ["mine"], "examples": {"own": "own.txt"}}},
            "captions.rewrite.styles: 'mine' is not a style; accepted: chat_a, chat_b, human, coco, and keys of examples",
        ),
        ({"rewrite": [{"engine": "llm", "styels": ["human"]}]}, "captions.rewrite.0.styels: unknown key; did you mean 'styles'?"),
        ({"rewrite": {"engine": "llm", "styels": ["human"]}}, "captions.rewrite.styels: unknown key; did you mean"),
        ({"rewrite": [{"styles": ["human"]}]}, "captions.rewrite.0.engine: is missing"),
        ({"rewrite": {"engine": "llm", "per_row": 65}}, "captions.rewrite.per_row: accepted: 1 to 64, or a SQL expression (found 65)"),
        ({"rewrite": {"engine": "llm"}, "gates": {"words": [1]}}, "captions.gates.words.1: Field required (found [1])"),
        ({"rewrite": []}, "captions.rewrite: List should have at least 1 item"),
        ({"rewrite": "llm"}, "captions.rewrite: Input should be a mapping (found 'llm')"),
        ({"rewrite": ["llm"]}, "captions.rewrite.0: Input should be a mapping (found 'llm')"),
        ({"fuse": [{"engine": "llm"}]}, "captions.fuse: Input should be a mapping"),
        (
            {"recaption": [{"engine": "llm"}, {"engine": "api", "styles": ["long"]}], "fuse": {"engine": "llm", "style": "plain"}},
            "captions.fuse.style: 'plain' is not among the styles of recaption",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(change, message):
    spec = {"openai": {"base_url": "http://localhost:1/v1", "model": "tiny"}}
    captions = {"engines": {"llm": spec, "api": spec}, **change}
    source = {"name": "x", "format": "webdataset", "path": "x.tar"}
    with pytest.raises(RecipeError) as error:
        parse_recipe({"input": source, "captions": captions})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"per_row": "wrds"}, r"captions\.rewrite\.1\.per_row: .*wrds"),
        ({"template": "/nowhere/t.txt"}, r"captions\.rewrite\.1\.template: /nowhere/t.txt: no such file"),
    ],
)
def test_what_is_refused_when_the_pool_is_known(section, message, captions, path, tmp_path):
    captions["rewrite"][1] |= section
    with pytest.raises(RecipeError, match=message):
        prepare(recipe(path, captions), str(tmp_path / "out"))


def test_a_list_is_not_short_of_what_is_refused_in_it():
    with pytest.raises(RecipeError) as error:
        parse_recipe({"input": [], "captions": {"rewrite": {"engine": "llm", "examples": {}}}})
    lines = [line.partition(" should")[0] for line in str(error.value).splitlines()]
    assert lines[:2] == ["recipe: input: List", "recipe: captions.rewrite.examples: Dictionary"]


def test_languages_are_refused_where_they_stand(captions, path, tmp_path):
    translate = [{"engine": "llm", "languages": ["fr"]}, {"engine": "api", "languages": ["de", "xx"]}]
    with pytest.raises(RecipeError, match=r"captions\.translate\.1\.languages: unknown language 'xx'"):
        prepare(recipe(path, captions | {"translate": translate}), str(tmp_path / "out"))


def test_the_plan_warns_of_engines_that_cannot_be_opened(captions, llm, path, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    captions["engines"]["api"]["openai"]["key"] = "NO_SUCH_KEY"
    (tmp_path / "recipe.yaml").write_text(
        recipe(path, captions).model_dump_json(include={"input", "captions", "max_failed"})
    )

    def planned(reuse=None):
        plan(str(tmp_path / "recipe.yaml"), reuse=reuse)
        return [line.strip() for line in capsys.readouterr().out.splitlines()]

    warnings = [line for line in planned() if line.startswith("warning")]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: captions.engines.api: key: the environment variable NO_SUCH_KEY is not set")
    monkeypatch.setenv("NO_SUCH_KEY", "x")
    assert not any("warning" in line for line in planned())
    assert not llm.asked  # for its models alone
    llm.die()
    assert [line.split("/v1: ")[1][:18] for line in planned() if line.startswith("warning")] == ["cannot be reached "]
    llm.revive()
    kit.run_local(recipe(path, captions), tmp_path / "a")
    told = planned(str(tmp_path / "a"))
    n = len(kept_samples(tmp_path / "a"))
    assert any(
        " ".join(line.split()).startswith(f"rewrite about 0 requests to llm ({n} more are cached), 0 tok")
        for line in told
    )
