"""Several sections for one kind of caption, each with its own engine, and the accounting by engine."""

import json
from collections import Counter

import pytest

from curate.ask.whatif.estimate import estimate
from curate.base.errors import RunError
from curate.captions.kinds.rewrite import load_pairs
from curate.llm import openai
from curate.llm.engine import Answer
from curate.llm.recorded import RecordedEngine
from pipelines.prepare import prepare
from tests import kit
from tests.kit import llm_server
from tests.kit.captioned import ask, faithful, kept_samples
from tests.kit.llm_server import FaultServer, status

pytestmark = pytest.mark.thorough
CHAT = "[user]\nSay this caption in other words: <caption>{caption}</caption>\nExamples:\n{examples}"


def say(text):
    """Answer a completion as in LaCLIP, and a chat with a line after empty lines."""
    if "<caption>" not in text:
        return faithful(text)
    return f"\n\nthere is {text.partition('<caption>')[2].partition('</caption>')[0].strip()}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(llm_server, "echo", say)


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
    """Two engines that rewrite: one with completions, one with chats."""
    (tmp_path / "chat.txt").write_text(CHAT)
    chat = {"styles": ["human", "coco"], "prompt": "chat", "template": str(tmp_path / "chat.txt")}
    return {
        "engines": {"llm": engine(llm, input=1e6), "api": engine(api, input=2e6, output=1e6)},
        "rewrite": [
            {"engine": "llm", "styles": ["chat_a"], "batch": 7},
            {"engine": "api", **chat, "per_row": 2, "temperature": 0.5},
        ],
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return kit.write_tars(tmp_path_factory.mktemp("pool") / "tars", kit.make_samples(24), 2)


@pytest.fixture
def run(path, tmp_path):
    """Run a recipe with these captions into a folder, with other sections; `reuse` names an earlier folder."""

    def run_into(name, captions, reuse=None, **sections):
        recipe = kit.recipe_of(path, captions=captions, **sections)
        return kit.run_local(recipe, tmp_path / name, reuse=reuse and tmp_path / reuse)

    return run_into


def by_style(run):
    """Counts of texts by style and model."""
    return Counter((row["style"], row["model"]) for row in run.table("captions").to_pylist())


def test_each_section_asks_its_engine_in_its_way(captions, llm, api, run):
    done = run("a", captions)
    kit.conserved(done)
    samples = kept_samples(done.folder)
    n = len(samples)
    assert by_style(done) == {("chat_a", "tiny-llm"): n, ("human", "other-llm"): 2 * n, ("coco", "other-llm"): 2 * n}
    assert len(llm.asked) == n and len(api.asked) == 4 * n
    assert {(seen.path, seen.body["temperature"]) for seen in llm.asked} == {("/v1/completions", 0.9)}
    assert {(seen.path, seen.body["temperature"]) for seen in api.asked} == {("/v1/chat/completions", 0.5)}
    styles = set()
    for files in samples.values():
        fields = json.loads(files["json"])["captions"]
        original = " ".join(fields["original"].split())
        for style, text in fields["rewrite"].items():
            assert text == (f"here you can see {original}" if style == "chat_a" else f"there is {original}")
            styles.add(style)
    assert styles == {"chat_a", "human", "human_2", "coco", "coco_2"}
    single = captions | {"rewrite": captions["rewrite"][0]}
    run("b", single)  # a list of one is the section itself
    recipe = kit.recipe_of(
        done.run["recipe"]["input"][0]["path"], captions=captions | {"rewrite": captions["rewrite"][:1]}
    )
    assert prepare(recipe, str(done.folder.parent / "b")).finished


def test_the_work_of_each_engine_is_counted(captions, llm, api, run):
    api.always = lambda handler: handler.reply(400, b"no") if "1<" in handler.seen.text else handler.answer()
    done = run("a", captions | {"output": {"mix": {"rewrite": 0.5}}})
    rows = done.table("captions").to_pylist()
    works = {row["engine"]: row for row in ask(done.folder, "caption_work")}
    assert list(works) == ["api", "llm"]
    texts = [files["txt"].decode() for files in kept_samples(done.folder).values()]
    for name, server, price, start in (("llm", llm, (1, 0), "here you can see "), ("api", api, (2, 1), "there is ")):
        own = [row for row in rows if row["model"] == server.models[0]]
        good, work = sum(row["status"] == "ok" for row in own), works[name]
        assert (work["kind"], work["model"], work["requests"]) == ("rewrite", server.models[0], len(own))
        assert work["sent"] == len(server.asked) == len(own) and work["failed"] == len(own) - good
        assert work["passed"] == sum(row["gate"] == "passed" for row in own)
        assert (work["tokens_in"], work["tokens_out"]) == (11 * good, 3 * good)
        assert work["cost"] == pytest.approx(price[0] * 11 * good + price[1] * 3 * good)
        assert work["seconds"] > 0 and work["replaced"] == sum(text.startswith(start) for text in texts) > 0
        counts = (
            f"{work['passed']:,} of {work['requests']:,} texts passed the filters, {work['replaced']:,} are in `.txt`"
        )
        assert f"- rewrite by `{work['model']}`: {counts}" in (done.folder / "README.md").read_text()
    assert works["api"]["failed"] > 0


def test_the_requests_of_several_commands_are_summed(captions, llm, run):
    """A run that reuses all texts counts no work."""
    only = {"engines": {"llm": captions["engines"]["llm"]}, "rewrite": captions["rewrite"][0] | {"batch": 1}}
    llm.always = lambda handler: handler.reply(400, b"no") if "7" in handler.seen.text else handler.answer()
    with pytest.raises(RunError, match=r"caption requests .* got no answer"):
        run("a", only, max_failed=0.1)
    llm.always, before = None, len(llm.asked)
    done = run("a", only, max_failed=0.1)
    (work,) = ask(done.folder, "caption_work")
    assert work["sent"] == len(llm.asked) > before and work["sent"] >= work["requests"]
    assert work["tokens_sent"] == 14 * work["requests"] == work["tokens_in"] + work["tokens_out"]
    assert work["cost"] == pytest.approx(11 * work["requests"])
    again = run("b", only | {"output": {"mix": {"rewrite": 0.5}}}, reuse="a")
    [costs] = [row for row in ask(again.folder, "costs") if row["what"] == "rewrite"]
    assert [costs[name] for name in ("requests", "tokens", "tokens_each", "cost")] == [0, 0, 0, 0]


def test_prompts_and_examples_of_the_user(captions, llm, run, tmp_path):
    """A change of a file's content, but not of its path, sends requests again; texts of other styles are cached."""
    (tmp_path / "prompt.txt").write_text("Differently:\n{source_1} => {target_1}\n{caption} =>")
    examples = {name: tmp_path / name for name in ("own.txt", "moved.txt")}
    for example in examples.values():
        example.write_text("".join(f"a photo of {i} => there is {i}\n" for i in range(9)))
    template = {"engine": "llm", "template": f"{tmp_path}/prompt.txt", "styles": ["own", "coco"]}
    own, moved = ({"rewrite": template | {"examples": {"own": str(path)}}} for path in examples.values())
    first = run("a", captions | own)
    asked = len(llm.asked)
    assert {style for style, _ in by_style(first)} == {"own", "coco"}
    prompts = [seen.body["prompt"].split("\n") for seen in llm.asked]
    assert all(len(lines) == 3 and lines[0] == "Differently:" and lines[2].endswith(" =>") for lines in prompts)
    assert sum(lines[1].startswith("a photo of ") for lines in prompts) == asked / 2
    second = run("b", captions | moved, reuse="a")
    assert len(llm.asked) == asked and first.run["keys"]["captions"] == second.run["keys"]["captions"]
    examples["moved.txt"].write_text("".join(f"photo of {i} => there is {i}\n" for i in range(9)))
    third = run("c", captions | moved, reuse="b")
    assert len(llm.asked) == asked * 3 / 2 and third.run["keys"]["captions"] != first.run["keys"]["captions"]


def test_a_style_that_moves_to_another_section_is_not_asked_again(captions, llm, api, run):
    """This holds if engine, prompt, and sampling are equal, and also between one section and several."""
    first = run("a", captions | {"rewrite": {"engine": "llm", "styles": ["human", "coco", "chat_a"]}})
    asked, others = len(llm.asked), {"engine": "llm", "styles": ["human", "chat_a"]}
    split = [{"engine": "llm", "styles": ["coco"], "batch": 3}, others]
    second = run("b", captions | {"rewrite": split}, reuse="a")
    texts = [
        {(row["uid"], row["style"], row["prompt"], row["text"]) for row in done.table("captions").to_pylist()}
        for done in (first, second)
    ]
    assert texts[0] == texts[1] and len(llm.asked) == asked
    (work,) = ask(second.folder, "caption_work")
    assert (work["engine"], work["requests"], work["sent"]) == ("llm", asked, 0)
    third = run("c", captions | {"rewrite": [{"engine": "api", "styles": ["coco"]}, others]}, reuse="b")
    assert len(llm.asked) == asked and len(api.asked) == by_style(third)["coco", "other-llm"] == asked / 3


def test_texts_are_compared_with_the_examples_of_their_own_section(captions, run, tmp_path, monkeypatch):
    pairs = {style: {pair.target for pair in load_pairs(style)} for style in ("chat_a", "human", "coco")}
    answers = iter([*pairs["chat_a"], *pairs["human"], *pairs["coco"]] * 99)
    engines = {name: {"recorded": {"path": str(tmp_path / "none"), "model": name}} for name in ("llm", "api")}
    monkeypatch.setattr(RecordedEngine, "answers", lambda self, asked: enumerate(Answer(next(answers)) for _ in asked))
    done = run("a", captions | {"engines": engines, "gates": {"off": ["names", "numbers", "length"]}})
    counts = Counter()
    for row in done.table("captions").to_pylist():
        own = ["chat_a"] if row["model"] == "llm" else ["human", "coco"]
        echoes = any(row["text"] in pairs[style] for style in own)
        assert ("echo_prompt" in row["failed"]) == echoes
        counts[echoes] += 1
    assert min(counts[True], counts[False]) > 10


def test_recaptions_of_several_sections_are_fused_and_mixed(captions, llm, run, monkeypatch):
    monkeypatch.setattr(
        llm_server, "echo", lambda text: "a drawing of some thing" if "paragraph" in text else "a thing"
    )
    done = run("a", {
        "engines": captions["engines"],
        "recaption": [{"engine": "llm", "styles": ["short"]}, {"engine": "api", "styles": ["long"]}],
        "fuse": {"engine": "llm", "style": "long"},
        "translate": [{"engine": "llm", "languages": ["fr"]}, {"engine": "api", "languages": ["de", "ja"]}],
        "gates": {"off": ["names", "numbers", "language", "length", "echo_prompt", "repetition"]},
        "output": {"mix": {"recaption": 1.0}},
    })  # fmt: skip
    samples = kept_samples(done.folder)
    n = len(samples)
    works = {(row["kind"], row["engine"]): row for row in ask(done.folder, "caption_work")}
    assert {kind: work["requests"] for kind, work in works.items()} == {
        ("recaption", "llm"): n, ("recaption", "api"): n, ("fused", "llm"): n,
        ("translation", "llm"): n, ("translation", "api"): 2 * n,
    }  # fmt: skip
    replaced = [works["recaption", engine]["replaced"] for engine in ("llm", "api")]
    assert sum(replaced) == n and min(replaced) > n / 5
    for files in samples.values():
        fields = json.loads(files["json"])["captions"]
        assert fields["recaption"] == ["a thing", "a drawing of some thing"]
        assert files["txt"].decode() in fields["recaption"]
    assert len([seen for seen in llm.asked if "a drawing of some thing" in seen.text]) == n  # fused of style `long`


def test_failures_of_one_engine_leave_the_texts_of_the_other(captions, llm, api, run):
    api.always = status(401, {"error": {"message": "key expired"}})
    works = {row["engine"]: row for row in ask(run("a", captions).folder, "caption_work")}
    assert works["api"]["failed"] == works["api"]["requests"] and works["llm"]["failed"] == 0
    assert len(api.asked) < works["api"]["requests"] / 2  # curate stops asking
    with pytest.raises(RunError, match=r"refused .*, such as stopped, because the endpoint does not answer: 401"):
        run("b", captions, max_failed=0.1)


def test_a_plan_tells_engines_apart_and_what_is_answered_already(captions, path, run, tmp_path):
    n = len(kept_samples(run("a", captions).folder))

    def planned(captions, out, reuse):
        prepared = prepare(kit.recipe_of(path, captions=captions), str(tmp_path / out), reuse and str(tmp_path / reuse))
        found = estimate(prepared.context, prepared.plan.units, prepared.metadata)
        return {one.engine: (one.requests, one.answered, one.cost > 0) for one in found.requests}

    assert planned(captions, "b", None) == {"llm": (n, 0, True), "api": (4 * n, 0, True)}
    assert planned(captions, "b", "a") == {"llm": (0, n, False), "api": (0, 4 * n, False)}
    more = [captions["rewrite"][0] | {"styles": ["chat_a", "chat_b"]}, captions["rewrite"][1]]
    assert planned(captions | {"rewrite": more}, "b", "a") == {"llm": (n, n, True), "api": (0, 4 * n, False)}
    (tmp_path / "a/_SUCCESS").unlink()
    assert planned(captions, "a", None) == {"llm": (0, n, False), "api": (0, 4 * n, False)}
