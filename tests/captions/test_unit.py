"""Captions in whole runs: written, judged and emitted; nothing is requested twice; failures are reported and retried."""

import json
import re
import tarfile

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.ask.explain import explain_sample
from curate.ask.text_pages import render_page
from curate.ask.whatif.estimate import estimate
from curate.base.errors import RecipeError, RunError
from curate.base.ids import hash64
from curate.captions import unit as captioning
from curate.captions.gates.gate import run_gates
from curate.emit import steps
from curate.emit.output_format import emit_shard
from curate.llm import openai
from curate.llm.cache import AnswerCache
from curate.publish.forget.forget import forget
from curate.store import checkpoints
from curate.store.tables import UnitTables
from pipelines.claim import claim_folder
from pipelines.driver import preflight, run
from pipelines.identity import count_current
from pipelines.prepare import prepare
from tests import kit
from tests.kit import conserved
from tests.kit import llm_server as servers
from tests.kit.llm_server import FaultServer, body, hang, status
from tests.kit.written_runs import run_query
from tests.publish.forget.victims import left_of, told_apart, uids

STYLES = ["human", "coco"]


def caption_of(prompt):
    """The caption that a LaCLIP prompt ends with."""
    return prompt.rstrip().splitlines()[-1].removesuffix("=>").strip()


def faithful(prompt):
    return f" here you can see {caption_of(prompt)}\nand another line"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(openai, "MAX_PAUSE", 0.05)
    monkeypatch.setattr(servers, "echo", faithful)


@pytest.fixture
def server():
    with FaultServer() as server:
        yield server


def recipe(path, server, **sections):
    spec = {"base_url": server.base_url, "model": "tiny-llm", "attempts": 2, "timeout": 60}
    captions = {
        "engines": {"llm": {"openai": spec}},
        "rewrite": {"engine": "llm", "styles": STYLES, "batch": 8},
        **sections.pop("captions", {}),
    }
    return kit.recipe_of(path, captions=captions, **{"max_failed": 1.0, **sections})


def kept_samples(folder):
    """Of each sample in the shards its members by suffix, by uid."""
    found = {}
    for path in sorted(folder.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(f"{path.name} {key}", {})[suffix] = file.read()
    return {json.loads(files["json"])["uid"]: files for files in found.values()}


def test_texts_are_written_judged_and_put_out(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 3)
    runs = [
        kit.run_local(recipe(path, server), tmp_path / "a"),
        kit.run_beam(recipe(path, server), tmp_path / "b", reuse=tmp_path / "a"),
    ]
    assert runs[0].members == runs[1].members
    for done in runs:
        conserved(done)
    samples = kept_samples(tmp_path / "a")
    captions = runs[0].table("captions").to_pylist()
    assert len(captions) == len(STYLES) * len(samples) == len(server.asked)
    assert {row["uid"] for row in captions} == set(samples)
    for row in captions:
        fields = json.loads(samples[row["uid"]]["json"])
        original = fields["captions"]["original"]
        assert samples[row["uid"]]["txt"].decode() == original
        assert row["text"] == f"here you can see {' '.join(original.split())}"
        assert (row["kind"], row["model"], row["status"], row["tokens"]) == ("rewrite", "tiny-llm", "ok", 3)
        assert (row["gate"] == "passed") == (row["failed"] == [])
        assert fields["captions"]["rewrite"].get(row["style"]) == (row["text"] if row["gate"] == "passed" else None)
    assert sum(row["gate"] == "passed" for row in captions) > 0.8 * len(captions)
    explained = " ".join(str(explain_sample(str(tmp_path / "a"), captions[0]["uid"])).split())
    assert f"rewrite coco {captions[0]['gate']}: here you can see" in explained
    plain = kit.run_local(recipe(path, server).model_copy(update={"captions": None}), tmp_path / "plain")
    assert plain.table("decisions").equals(runs[0].table("decisions"))


@pytest.mark.thorough
def test_what_was_answered_is_not_asked_again(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 3)
    first = kit.run_local(recipe(path, server), tmp_path / "a")
    asked = len(server.asked)
    stricter = recipe(path, server, captions={"gates": {"words": [2, 6]}})
    second = kit.run_local(stricter, tmp_path / "b", reuse=tmp_path / "a")
    assert len(server.asked) == asked
    gates = {row["gate"] for row in second.table("captions").to_pylist()}
    assert "length" in gates and "length" not in {row["gate"] for row in first.table("captions").to_pylist()}
    more = recipe(path, server, captions={"rewrite": {"engine": "llm", "styles": [*STYLES, "chat_a"], "per_row": 2}})
    third = kit.run_local(more, tmp_path / "c", reuse=tmp_path / "b")
    rows = len(third.table("captions"))
    assert len(server.asked) - asked == rows - len(first.table("captions"))
    other = kit.write_tars(tmp_path / "shuffled", kit.shuffled(kit.make_samples(24), 1), 5)
    kit.run_local(recipe(other, server), tmp_path / "d", reuse=tmp_path / "a")
    assert len(server.asked) - asked == rows - len(first.table("captions"))


def test_a_killed_run_loses_the_batch_in_flight(server, tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)
    asked = recipe(path, server)
    kill_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "a")
    answered = {seen.text for seen in server.asked if seen.status == 200}
    monkeypatch.undo()
    monkeypatch.setattr(servers, "echo", faithful)
    before = len(server.asked)
    done = kit.run_local(asked, tmp_path / "a")
    conserved(done)
    assert len(answered) > 0 and len(server.asked) == before + len(done.table("captions")) - 2 * 8
    assert not (tmp_path / "a/parts").exists() or not list((tmp_path / "a/parts").rglob("*.parquet"))


def test_a_killed_run_loses_only_what_came_last(server, tmp_path, monkeypatch):
    """Within a batch too, where it takes long."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)
    asked = recipe(path, server)
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    kill_after(monkeypatch, 11)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "a")
    monkeypatch.undo()
    monkeypatch.setattr(servers, "echo", faithful)
    add, added = AnswerCache.add, [0]

    def adding(self, answers, *rest):
        added[0] += len(answers)
        add(self, answers, *rest)

    monkeypatch.setattr(AnswerCache, "add", adding)
    done = kit.run_local(asked, tmp_path / "a")
    conserved(done)
    assert added[0] == len(done.table("captions")) - 11
    undisturbed = kit.run_local(asked, tmp_path / "b")
    assert kit.lasting_files(tmp_path / "a") == kit.lasting_files(undisturbed.folder)


def test_texts_are_not_judged_again(server, tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)
    asked = recipe(path, server)
    undisturbed = kit.run_local(asked, tmp_path / "a")
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(captioning, "_BATCH_ROWS", 10)
    judged = []

    def judge(given, options):
        judged.append(len(given.texts))
        if len(judged) == 3:
            raise KeyboardInterrupt
        return run_gates(given, options)

    monkeypatch.setattr(captioning, "run_gates", judge)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "b")
    done = kit.run_local(asked, tmp_path / "b")
    assert judged[:3] == [10, 10, 10] and sum(judged[3:]) == len(done.table("captions")) - 20
    assert kit.lasting_files(tmp_path / "b") == kit.lasting_files(undisturbed.folder)


def kill_after(monkeypatch, batches):
    """From the batch after so many on, putting one into place is as if the process were killed."""
    add, count = AnswerCache.add, [0]

    def failing(self, *args):
        count[0] += 1
        if count[0] > batches:
            raise KeyboardInterrupt
        add(self, *args)

    monkeypatch.setattr(AnswerCache, "add", failing)


@pytest.mark.thorough
def test_failures_are_told_and_asked_again(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    asked = recipe(path, server, max_failed=0.4)
    prepared = prepare(asked, str(tmp_path / "a"))
    bad = re.compile(r"[02468] =>$")
    server.always = lambda handler: handler.reply(500, b"{}") if bad.search(handler.seen.text) else handler.answer()
    claim_folder(prepared)
    with pytest.raises(RunError, match=r"caption requests .* got no answer, and max_failed is 0.4\n  busy "):
        run(prepared)
    assert not (tmp_path / "a/_SUCCESS").exists() and not (tmp_path / "a/shards").exists()
    good = {seen.text for seen in server.asked if seen.status == 200}
    before, server.always = len(server.asked), None
    again = prepare(asked, str(tmp_path / "a"))
    claim_folder(again)
    run(again)
    sent = [seen.text for seen in server.asked[before:]]
    assert sent and not good & set(sent) and len(sent) == len(set(sent))
    assert {row["status"] for row in kit.Ran(tmp_path / "a").table("captions").to_pylist()} == {"ok"}


def test_with_failures_below_the_limit_originals_stay(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    server.always = lambda handler: handler.reply(400, b"no") if "1 =>" in handler.seen.text[-6:] else handler.answer()
    done = kit.run_local(recipe(path, server), tmp_path / "a")
    conserved(done)
    lost = [row for row in done.table("captions").to_pylist() if row["status"] != "ok"]
    assert lost and all((row["status"], row["text"], row["gate"]) == ("refused", None, None) for row in lost)


@pytest.mark.thorough
def test_a_share_of_the_texts_is_another(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(120), 2)
    asked = recipe(path, server, captions={"output": {"mix": {"rewrite": 0.4}, "syn_json": True}})
    done = kit.run_local(asked, tmp_path / "a")
    samples = kept_samples(tmp_path / "a")
    changed = 0
    for files in samples.values():
        fields = json.loads(files["json"])["captions"]
        text = files["txt"].decode()
        assert text in [fields["original"], *fields["rewrite"].values()]
        changed += text != fields["original"]
        assert json.loads(files["syn.json"]) == {"syn_text": list(fields["rewrite"].values())}
    assert 0.25 < changed / len(samples) < 0.5
    sidecar = pq.read_table(tmp_path / "a/shards/00000.parquet")
    assert dict(zip(*(sidecar[name].to_pylist() for name in ("uid", "caption")), strict=True)) == {
        uid: files["txt"].decode() for uid, files in samples.items()
    }
    reused = kit.run_local(
        recipe(path, server, captions={"output": {"mix": {"rewrite": 0.2}}}), tmp_path / "b", reuse=tmp_path / "a"
    )
    fewer = {uid for uid, files in kept_samples(tmp_path / "b").items() if files["txt"] == samples[uid]["txt"]}
    conserved(reused)
    assert len(fewer) >= len(samples) * 0.7
    conserved(done)


def test_more_is_spent_on_the_tail(server, tmp_path):
    samples = kit.make_samples(40)
    path = kit.write_tars(tmp_path / "tars", samples, 2)
    (tmp_path / "entries.json").write_text(json.dumps(["red", "dog", "cat", "blue", "1", "2", "3"]))
    per_row = "CASE WHEN rarest <= 3 THEN 3 WHEN entries > 1 THEN 1 ELSE 0 END"
    asked = recipe(
        path,
        server,
        match={"metadata": str(tmp_path / "entries.json")},
        captions={"rewrite": {"engine": "llm", "styles": ["human"], "per_row": per_row}},
    )
    done = kit.run_local(asked, tmp_path / "a")
    counts = {row["entry_id"]: row["survivors"] for row in done.table("entries").to_pylist()}
    matches = {row["uid"]: row["entry_ids"] for row in done.table("matches").to_pylist()}
    kept = [row["uid"] for row in done.table("decisions").to_pylist() if row["kept"]]
    expected = {
        uid: 3 if min(counts[e] for e in matches[uid]) <= 3 else 1 if len(matches[uid]) > 1 else 0 for uid in kept
    }
    found = dict.fromkeys(kept, 0)
    for row in done.table("captions").to_pylist():
        found[row["uid"]] += 1
    assert found == expected and {0, 1, 3} >= set(expected.values()) and len(set(expected.values())) > 1


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        ({"rewrite": {"engine": "x"}}, ["no engine is named 'x'", "llm"]),
        ({"rewrite": {"engine": "llm", "styles": ["loud"]}}, ["captions.rewrite.styles", "loud", "human"]),
        ({"rewrite": {"engine": "llm", "per_row": "words * 2.5"}}, ["captions.rewrite.per_row", "DECIMAL", "integer"]),
        (
            {"rewrite": {"engine": "llm", "per_row": "wrds"}},
            ["captions.rewrite.per_row", "wrds", "did you mean 'words'"],
        ),
        ({"rewrite": {"engine": "llm", "template": "/nowhere/t.txt"}}, ["/nowhere/t.txt", "no such file"]),
        ({"rewrite": None}, ["captions: it has nothing to write; accepted: recaption, fuse"]),
        ({"output": {"mix": {"fused": 0.5}}}, ["captions.output.mix: no section writes fused"]),
        ({"gates": {"entries": 0.9}}, ["captions.gates.entries needs match"]),
        ({"gates": {"clip_score": 0.2}}, ["captions.gates.clip_score needs the model 'clip'", "embeddings: true"]),
        ({"output": {"mix": {"rewrite": 1.5}}}, ["shares are between 0 and 1"]),
        ({"fuse": {"engine": "llm"}}, ["fuse needs recaption"]),
        ({"translate": {"engine": "llm", "languages": ["xx"]}}, ["captions.translate.languages", "xx"]),
    ],
)
def test_what_is_refused(captions, words, server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(10), 1)
    with pytest.raises(RecipeError) as error:
        prepare(recipe(path, server, captions=captions), str(tmp_path / "out"))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_endpoint_that_is_not_there_ends_the_run_before_it_writes(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(10), 1)
    server.always = hang
    engines = {"llm": {"openai": {"base_url": server.base_url, "model": "tiny-llm", "attempts": 2, "timeout": 1}}}
    prepared = prepare(recipe(path, server, captions={"engines": engines}), str(tmp_path / "out"))
    with pytest.raises((RecipeError, RunError), match=r"captions.engines.llm: .*"):
        preflight(prepared)
    server.always = status(401)
    for options in ([], ["--direct_running_mode=multi_processing"]):
        with pytest.raises((RecipeError, RunError), match=r"captions.engines.llm: .*401"):
            preflight(prepare(recipe(path, server), str(tmp_path / "out"), options=options))
    assert not (tmp_path / "out").exists()


def test_what_it_took_is_in_sql(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    spec = {"base_url": server.base_url, "model": "tiny-llm", "attempts": 1}
    engines = {"llm": {"openai": spec, "price": {"input": 1e6, "output": 2e6}}}
    server.always = lambda handler: handler.reply(400, b"no") if "1 =>" in handler.seen.text[-6:] else handler.answer()
    done = kit.run_local(recipe(path, server, captions={"engines": engines}), tmp_path / "a")
    captions = done.table("captions").to_pylist()
    lost = sum(row["status"] != "ok" for row in captions)
    passed = sum(row["gate"] == "passed" for row in captions)
    answered = len(captions) - lost
    (row,) = ask(done.folder, "caption_work")
    assert 0 < lost < answered and row["seconds"] > 0
    assert {name: row[name] for name in ("kind", "engine", "model", "requests", "sent", "failed", "passed")} == {
        **{"kind": "rewrite", "engine": "llm", "model": "tiny-llm"},
        **{"requests": len(captions), "sent": len(captions), "failed": lost, "passed": passed},
    }
    assert (row["tokens_in"], row["tokens_out"]) == (11 * answered, 3 * answered)
    assert row["cost"] == pytest.approx(11 * answered + 2 * 3 * answered)
    assert row["cost_passed"] == pytest.approx(row["cost"] / passed)
    gates = ask(done.folder, "caption_gates")
    assert sum(r["texts"] for r in gates if r["gate"] == "refused") == lost
    assert sum(r["texts"] for r in gates if r["gate"] == "passed") == passed
    shown = ask(done.folder, "captions", gate="passed", limit="3")
    assert len(shown) == 3 and all(r["text"] == f"here you can see {' '.join(r['original'].split())}" for r in shown)
    conserved(done)


def ask(folder, name, **params):
    """A named query's rows."""
    found = run_query(str(folder), name, params)
    return [dict(zip(found.names, row, strict=True)) for row in found.rows]


def plan_page(found):
    """The page of an estimate."""
    return str(render_page("plan", part="estimate", estimate=found, downloads=False, seen=None, cores=1))


def test_the_plan_counts_requests(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    spec = {"base_url": server.base_url, "model": "tiny-llm"}
    engines = {"llm": {"openai": spec, "price": {"input": 1.0, "output": 2.0}}}
    asked = recipe(path, server, captions={"engines": engines})
    prepared = prepare(asked, str(tmp_path / "a"))
    found = estimate(prepared.context, prepared.plan.units, prepared.metadata)
    done = kit.run_local(asked, tmp_path / "b")
    assert found is not None
    (rewrite,) = found.requests
    assert (rewrite.kind, rewrite.engine, rewrite.answered) == ("rewrite", "llm", 0)
    assert rewrite.requests == len(done.table("captions"))
    assert rewrite.tokens_out == 77 * rewrite.requests and 40 < rewrite.tokens_in / rewrite.requests < 200
    assert rewrite.cost == pytest.approx((rewrite.tokens_in + 2 * rewrite.tokens_out) / 1e6)
    assert not rewrite.has_images and "tokens in, at most" in plan_page(found)


def test_the_plan_says_that_tokens_of_images_are_not_counted(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    engines = {"vlm": {"openai": {"base_url": server.base_url, "model": "tiny-llm"}}}
    captions = {"engines": engines, "recaption": {"engine": "vlm"}, "rewrite": None}
    prepared = prepare(recipe(path, server, captions=captions), str(tmp_path / "a"))
    found = estimate(prepared.context, prepared.plan.units, prepared.metadata)
    assert found is not None
    [recaption] = found.requests
    assert recaption.has_images
    assert " tokens in (and those of images, which only the engine knows), at most " in plan_page(found)


FAULTS = {
    "429 storm": [status(429, b"{}", Retry_After="0")] * 3, "500": [status(500), status(503)], "hang": [hang],
    "truncated JSON": [body(b'{"choices": [{"text": "a')], "no JSON": [body(b"<html>busy</html>")],
    "empty choices": [body({"choices": []})],
    "null text": [body({"choices": [{"text": None, "finish_reason": "stop"}]})], "reset": [servers.reset],
    "cut": [servers.cut], "refused": [status(400, {"error": {"message": "no"}})],
}  # fmt: skip


@pytest.mark.slow
def test_whatever_an_endpoint_does_every_request_ends(server, tmp_path):
    """Each caption meets another fault, some twice as often as it is tried: a text or a reason for each, sent once after success."""
    samples = kit.make_samples(60)
    path = kit.write_tars(tmp_path / "tars", samples, 3)
    spec = {"base_url": server.base_url, "model": "tiny-llm", "attempts": 3, "timeout": 4, "concurrency": 24}
    kinds = list(FAULTS.values())
    met = {}
    good = {}  # when a request was sent that was answered well

    def fault(handler):
        text = handler.seen.text
        count = met[text] = met.get(text, 0) + 1
        own = kinds[hash_of(text) % (2 * len(kinds))] if hash_of(text) % (2 * len(kinds)) < len(kinds) else []
        if count <= len(own):
            own[count - 1](handler)
        else:
            good.setdefault(json.dumps(handler.seen.body), handler.seen.at)
            handler.answer()

    server.always = fault
    asked = recipe(path, server, captions={"engines": {"llm": {"openai": spec}}})
    done = kit.run_beam(asked, tmp_path / "a")
    conserved(done)
    rows = done.table("captions").to_pylist()
    assert len(rows) > 100 and all((row["text"] is None) == (row["status"] != "ok") for row in rows)
    lost = {row["status"] for row in rows} - {"ok"}
    assert {"busy", "malformed", "empty", "refused"} <= lost <= {"busy", "malformed", "empty", "refused", "timeout"}
    sent_at = {}
    for seen in server.asked:
        if seen.body:
            sent_at.setdefault(json.dumps(seen.body), []).append(seen.at)
    assert max(map(len, sent_at.values())) == 3
    # Nothing is sent after a good answer, but for one that came too late; a busy server sees a question late itself.
    for asking, at in good.items():
        assert all(later - at >= 0.3 for later in sent_at[asking] if later > at)
    before = len(server.asked)
    server.always = None
    second = kit.run_local(recipe(path, server), tmp_path / "b", reuse=tmp_path / "a")
    sent = [seen.text for seen in server.asked[before:]]
    failed = sum(row["status"] != "ok" for row in rows)
    assert len(sent) == failed
    assert {row["status"] for row in second.table("captions").to_pylist()} == {"ok"}


def hash_of(text):
    return hash64(text) >> 20


@pytest.mark.thorough
def test_a_server_that_dies_midway(server, tmp_path):
    """What it answered stands; the run fails as max_failed says, and a rerun asks the revived server for the rest alone."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(40), 2)
    asked = recipe(path, server, max_failed=0.1)
    prepared = prepare(asked, str(tmp_path / "a"))
    claim_folder(prepared)
    server.dies_at = 31
    with pytest.raises(RunError, match=r"caption requests .* got no answer(.|\n)*(unreachable|timeout) "):
        run(prepared)
    answered = {seen.text for seen in server.asked if seen.status == 200}
    assert 20 <= len(answered) <= 31
    before = len(server.asked)
    server.revive()
    again = prepare(asked, str(tmp_path / "a"))
    claim_folder(again)
    run(again)
    sent = [seen.text for seen in server.asked[before:]]
    assert not answered & set(sent) and len(sent) == len(set(sent))
    assert {row["status"] for row in kit.Ran(tmp_path / "a").table("captions").to_pylist()} == {"ok"}


@pytest.mark.thorough
def test_a_run_is_replayed_from_its_answers(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    first = kit.run_local(recipe(path, server), tmp_path / "a")
    asked = len(server.asked)
    recorded = {"llm": {"recorded": {"path": str(tmp_path / "a"), "model": "tiny-llm"}}}
    other = kit.write_tars(tmp_path / "other", kit.shuffled(kit.make_samples(24), 2), 5)
    second = kit.run_local(recipe(other, server, captions={"engines": recorded}), tmp_path / "b")
    texts = [
        {(row["uid"], row["style"]): (row["text"], row["gate"]) for row in done.table("captions").to_pylist()}
        for done in (first, second)
    ]
    assert texts[0] == texts[1] and len(server.asked) == asked
    more = {"engines": recorded, "rewrite": {"engine": "llm", "styles": ["chat_b"]}}
    third = kit.run_local(recipe(path, server, captions=more), tmp_path / "c")
    assert {row["status"] for row in third.table("captions").to_pylist()} == {"unknown"}


def refuse_some(handler):
    handler.reply(400, b"no") if hash_of(handler.seen.text) % 2 else handler.answer()


@pytest.mark.thorough
def test_shards_follow_texts_that_were_asked_again(server, tmp_path, monkeypatch):
    """A run is killed while it emits; its rerun asks again for what failed, and what stood of the shards is made anew."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(48), 3)
    asked = recipe(path, server, output={"rows_per_shard": 10})
    server.always = refuse_some
    emitted = []

    def killed(context, shard, repeated):
        if len(emitted) == 2:
            raise KeyboardInterrupt
        emitted.append(shard)
        return emit_shard(context, shard, repeated)

    monkeypatch.setattr(steps, "emit_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "a")
    monkeypatch.setattr(steps, "emit_shard", emit_shard)
    server.always = None
    done = kit.run_local(asked, tmp_path / "a")
    conserved(done)
    passed = {(r["uid"], r["style"]) for r in done.table("captions").to_pylist() if r["gate"] == "passed"}
    published = {
        (uid, style)
        for uid, files in kept_samples(tmp_path / "a").items()
        for style in json.loads(files["json"])["captions"]["rewrite"]
    }
    assert published == passed and {r["status"] for r in done.table("captions").to_pylist()} == {"ok"}


@pytest.mark.thorough
@pytest.mark.parametrize("at", ["answers", "captions", "forget"])
def test_a_kill_between_tables_leaves_nothing_behind(at, server, tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)
    asked = recipe(path, server)
    write, forget, reached = UnitTables.write, AnswerCache.delete_parts, [False]

    def die_after(context, name, *rest, **more):
        write(context, name, *rest, **more)
        if name == at:
            raise KeyboardInterrupt

    def die(cache):
        reached[0] = True
        raise KeyboardInterrupt

    monkeypatch.setattr(UnitTables, "write", die_after)
    if at == "forget":
        monkeypatch.setattr(AnswerCache, "delete_parts", die)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "a")
    assert reached[0] == (at == "forget")
    monkeypatch.setattr(UnitTables, "write", write)
    monkeypatch.setattr(AnswerCache, "delete_parts", forget)
    before = len(server.asked)
    done = kit.run_local(asked, tmp_path / "a")
    conserved(done)
    assert len(server.asked) == before == len(done.table("captions"))
    assert not list((tmp_path / "a").rglob("parts/**/*.parquet"))
    (row,) = ask(done.folder, "caption_work")
    assert row["sent"] == before and row["seconds"] > 0


def test_what_was_sent_before_a_kill_is_counted_and_what_is_reused_costs_nothing(server, tmp_path, monkeypatch):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)
    spec = {"base_url": server.base_url, "model": "tiny-llm", "attempts": 2}
    asked = recipe(path, server, captions={"engines": {"llm": {"openai": spec, "price": {"input": 1e6}}}})
    kill_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(asked, tmp_path / "a")
    monkeypatch.undo()
    monkeypatch.setattr(servers, "echo", faithful)
    done = kit.run_local(asked, tmp_path / "a")
    (row,) = ask(done.folder, "caption_work")
    assert row["sent"] == row["requests"] and row["cost"] == pytest.approx(11 * row["requests"])
    prepared = prepare(asked, str(tmp_path / "a"))
    assert prepared.finished and {*count_current(prepared.context, prepared.plan.units).values()} == {1}
    again = kit.run_local(asked, tmp_path / "b", reuse=tmp_path / "a")
    (row,) = ask(again.folder, "caption_work")
    assert (row["sent"], row["cost"], row["tokens_in"]) == (0, 0.0, 11 * row["requests"])


def test_a_pool_that_is_too_damaged_is_not_asked_for(server, tmp_path):
    kit.write_tars(tmp_path / "tars", kit.make_samples(24), 3)
    (tmp_path / "tars/bad.tar").write_bytes(b"x" * 2000)
    asked = recipe(f"{tmp_path}/tars/*.tar", server, max_failed_files=0.1)
    with pytest.raises(RunError, match="could not be read"):
        prepared = prepare(asked, str(tmp_path / "a"))
        claim_folder(prepared)
        run(prepared)
    assert not server.asked


def test_known_answers_need_no_endpoint(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    kit.run_local(recipe(path, server), tmp_path / "a")
    server.die()
    prepared = prepare(
        recipe(path, server, captions={"gates": {"words": [2, 6]}}), str(tmp_path / "b"), str(tmp_path / "a")
    )
    claim_folder(prepared)
    run(prepared)
    conserved(kit.Ran(tmp_path / "b"))


@pytest.mark.thorough
def test_the_order_of_shares_does_not_count(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(60), 2)
    texts = []
    for number, mix in enumerate(({"rewrite": 0.4, "fused": 0.4}, {"fused": 0.4, "rewrite": 0.4})):
        captions = {
            "recaption": {"engine": "llm"}, "fuse": {"engine": "llm"}, "output": {"mix": mix},
            "gates": {"off": ["names", "numbers", "length", "echo_prompt", "echo", "preamble", "unsafe", "repetition"]},
        }  # fmt: skip
        done = kit.run_local(recipe(path, server, captions=captions), tmp_path / str(number))
        texts.append({uid: files["txt"] for uid, files in kept_samples(done.folder).items()})
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["captions", "Curated_Caption"])
def test_columns_of_the_outputs_names_are_refused(name, server, tmp_path):
    pq.write_table(pa.table({"url": ["https://x"], "text": ["a red dog"], name: ["x"]}), tmp_path / "x.parquet")
    asked = kit.recipe_of(
        str(tmp_path / "x.parquet"),
        "parquet",
        captions=recipe("x", server).captions.model_dump(exclude_unset=True),
        measure={},
    )
    with pytest.raises(RecipeError, match=f"the pool has a column '{name}'"):
        prepare(asked, str(tmp_path / "out"))


def test_entries_need_metadata(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(10), 1)
    asked = recipe(path, server, captions={"rewrite": {"engine": "llm", "per_row": "entries + 1"}})
    with pytest.raises(RecipeError, match=r"captions\.rewrite\.per_row: no column 'entries'"):
        prepare(asked, str(tmp_path / "out"))


def test_further_texts_of_a_style_are_texts_too(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 2)
    per_row = "CASE WHEN words > 3 THEN 3 ELSE 1 END"
    asked = recipe(path, server, captions={"rewrite": {"engine": "llm", "styles": ["human"], "per_row": per_row}})
    done = kit.run_local(asked, tmp_path / "a")
    fields = [json.loads(files["json"])["captions"]["rewrite"] for files in kept_samples(done.folder).values()]
    assert {"human", "human_2", "human_3"} == {name for field in fields for name in field}
    assert all(isinstance(text, str) for field in fields for text in field.values())


@pytest.mark.thorough
def test_texts_of_what_is_forgotten_go_and_are_not_asked_for_again(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", told_apart(24), 3)
    done = kit.run_local(recipe(path, server), tmp_path / "a")
    captions = done.table("captions")
    victim = captions["uid"][0].as_py()
    original = next(row["caption"] for row in done.table("samples").to_pylist() if row["uid"] == victim)
    assert len(left_of(done.folder, [original])) >= 5
    forget(str(done.folder), uids(victim))
    assert left_of(done.folder, [original]) == []
    conserved(done)
    for name in ("answers", "captions"):
        assert victim not in done.table(name)["uid"].to_pylist()
        assert len(done.table(name)) >= len(captions) - 4 * len(STYLES)
    asked = len(server.asked)
    later = kit.run_local(recipe(path, server, output={"rows_per_shard": 9}), tmp_path / "b", reuse=done.folder)
    assert len(server.asked) == asked and left_of(later.folder, [original]) == []
    (done.folder / "tables/captions/00000.parquet").unlink()
    again = kit.run_local(recipe(path, server), done.folder)
    assert len(server.asked) == asked and left_of(again.folder, [original]) == []
    conserved(again)


@pytest.mark.slow
def test_texts_of_many_small_units_lie_in_few_files(server, tmp_path, monkeypatch):
    """From there they are reused, forgotten, and known to a run that goes on, with what they took."""
    monkeypatch.setattr("curate.pool.plan.UNIT_BYTES", (1, 1))
    monkeypatch.setattr("curate.publish.publish.MIN_UNITS", 6)
    path = kit.write_tars(tmp_path / "tars", told_apart(24), 8)
    done = kit.run_local(recipe(path, server), tmp_path / "a")
    assert [path.name for path in (done.folder / "tables/captions").iterdir()] == ["00000-00007.parquet"]
    conserved(done)
    asked = len(server.asked)
    (work,) = ask(done.folder, "caption_work")
    captions = done.table("captions")
    assert work["sent"] == asked == len(captions)
    reused = kit.run_local(recipe(path, server, output={"rows_per_shard": 9}), tmp_path / "b", reuse=done.folder)
    assert reused.table("captions").equals(captions) and reused.table("answers").equals(done.table("answers"))

    before = kit.lasting_files(done.folder)
    (done.folder / "_SUCCESS").unlink()
    conserved(kit.run_local(recipe(path, server), done.folder))
    assert kit.lasting_files(done.folder) == before
    none = {"sent": 0, "seconds": 0.0, "tokens_sent": 0}
    assert ask(done.folder, "caption_work") == [work | none]

    victim = captions["uid"][5].as_py()
    left = captions.filter(pc.not_equal(captions["uid"], victim))
    forget(str(done.folder), uids(victim))
    conserved(done)
    assert done.table("captions").equals(left) and len(left) < len(captions)
    (done.folder / "_SUCCESS").unlink()
    conserved(kit.run_local(recipe(path, server), done.folder))
    assert done.table("captions").equals(left)
    assert len(server.asked) == asked
