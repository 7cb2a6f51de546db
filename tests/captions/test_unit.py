"""Captions in whole runs: written, judged, and emitted; nothing is requested twice; failures are reported and retried."""

import json
import re
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from curate.ask.whatif.estimate import estimate
from curate.base.errors import RecipeError, RunError
from curate.base.ids import hash64
from curate.captions import unit as captioning
from curate.captions.gates.gate import run_gates
from curate.captions.kinds.kind import Text
from curate.captions.mix import choose_text
from curate.emit import steps
from curate.emit.output_format import emit_shard
from curate.llm import openai
from curate.llm.cache import AnswerCache
from curate.publish.forget.forget import forget
from curate.store import checkpoints
from pipelines.claim import claim_folder
from pipelines.driver import preflight, run
from pipelines.prepare import prepare
from tests import kit
from tests.kit import conserved
from tests.kit import llm_server as servers
from tests.kit.captioned import STYLES, ask, caption_recipe, faithful, kept_samples
from tests.kit.forgetting import left_of, told_apart, uids
from tests.kit.llm_server import FaultServer, hang, status


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(openai, "MAX_PAUSE", 0.05)
    monkeypatch.setattr(servers, "echo", faithful)
    with FaultServer() as server:
        yield server


@pytest.fixture
def path(tmp_path):
    return kit.write_tars(tmp_path / "tars", kit.make_samples(24), 1)


def run_checked(recipe, out, reuse=None):
    """Run as the command does, which checks for failed requests."""
    prepared = prepare(recipe, str(out), reuse and str(reuse))
    claim_folder(prepared)
    run(prepared)
    return kit.Ran(out)


def statuses(done):
    return {row["status"] for row in done.table("captions").to_pylist()}


def kill_after(patch, batches):
    """Kill the run when it stores a batch after so many."""
    add, count = AnswerCache.add, [0]

    def failing(self, *args):
        count[0] += 1
        if count[0] > batches:
            raise KeyboardInterrupt
        add(self, *args)

    patch.setattr(AnswerCache, "add", failing)


def test_texts_are_written_judged_and_emitted(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(24), 3)
    recipe = caption_recipe(path, server)
    local = kit.run_local(recipe, tmp_path / "a")
    conserved(local)
    samples, captions = kept_samples(tmp_path / "a"), local.table("captions").to_pylist()
    assert len(captions) == len(STYLES) * len(samples) == len(server.asked)
    assert {row["uid"] for row in captions} == set(samples)
    for row in captions:
        fields = json.loads(samples[row["uid"]]["json"])["captions"]
        assert samples[row["uid"]]["txt"].decode() == fields["original"]
        assert row["text"] == f"here you can see {' '.join(fields['original'].split())}"
        assert (row["kind"], row["model"], row["status"], row["tokens"]) == ("rewrite", "tiny-llm", "ok", 3)
        assert (row["gate"] == "passed") == (row["failed"] == [])
        assert fields["rewrite"].get(row["style"]) == (row["text"] if row["gate"] == "passed" else None)
    assert sum(row["gate"] == "passed" for row in captions) > 0.8 * len(captions)
    plain = kit.run_local(recipe.model_copy(update={"captions": None}), tmp_path / "plain")
    assert plain.table("decisions").equals(local.table("decisions"))


@pytest.mark.thorough
def test_answered_requests_are_not_sent_again(server, path, tmp_path):
    first = kit.run_local(caption_recipe(path, server), tmp_path / "a")
    asked = len(server.asked)
    server.die()  # cached answers need no endpoint
    stricter = run_checked(caption_recipe(path, server, {"gates": {"words": [2, 6]}}), tmp_path / "b", tmp_path / "a")
    conserved(stricter)
    gates = [{row["gate"] for row in done.table("captions").to_pylist()} for done in (first, stricter)]
    assert "length" in gates[1] - gates[0]
    server.revive()
    rewrite = {"engine": "llm", "styles": [*STYLES, "chat_a"], "per_row": 2}
    more = kit.run_local(caption_recipe(path, server, {"rewrite": rewrite}), tmp_path / "c", reuse=tmp_path / "b")
    sent = len(more.table("captions")) - len(first.table("captions"))
    other = kit.write_tars(tmp_path / "shuffled", kit.shuffled(kit.make_samples(24), 1), 5)
    kit.run_local(caption_recipe(other, server), tmp_path / "d", reuse=tmp_path / "a")
    assert len(server.asked) - asked == sent > 0


def test_a_killed_run_loses_the_batch_in_flight(server, path, tmp_path):
    engine = {"openai": {"base_url": server.base_url, "model": "tiny-llm"}, "price": {"input": 1e6}}
    recipe = caption_recipe(path, server, {"engines": {"llm": engine}})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_after(patch, 2)
        kit.run_local(recipe, tmp_path / "a")
    before = len(server.asked)
    done = kit.run_local(recipe, tmp_path / "a")
    conserved(done)
    requests = len(done.table("captions"))
    assert len(server.asked) == before + requests - 2 * 8
    assert not list((tmp_path / "a").rglob("parts/**/*.parquet"))
    (row,) = ask(done.folder, "caption_work")
    assert row["sent"] == row["requests"] == requests and row["cost"] == pytest.approx(11 * requests)


def test_checkpoints_within_a_batch(server, path, tmp_path, monkeypatch):
    """If an interval ends within a batch, its answers and verdicts are kept."""
    recipe = caption_recipe(path, server)
    undisturbed = kit.run_local(recipe, tmp_path / "a")
    monkeypatch.setattr(checkpoints, "INTERVAL", 0.0)
    monkeypatch.setattr(captioning, "_BATCH_ROWS", 10)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_after(patch, 11)
        kit.run_local(recipe, tmp_path / "b")
    judged, before = [], len(server.asked)

    def judge(candidates, options):
        judged.append(len(candidates.texts))
        if len(judged) == 3:
            raise KeyboardInterrupt
        return run_gates(candidates, options)

    monkeypatch.setattr(captioning, "run_gates", judge)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(recipe, tmp_path / "b")
    requests = len(kit.run_local(recipe, tmp_path / "b").table("captions"))
    assert len(server.asked) == before + requests - 11
    assert judged[:3] == [10, 10, 10] and sum(judged[3:]) == requests - 20
    assert kit.lasting_files(tmp_path / "b") == kit.lasting_files(undisturbed.folder)


@pytest.mark.thorough
@pytest.mark.parametrize(("ends_by", "reasons"), [("errors", "busy "), ("death", "(.|\n)*(unreachable|timeout) ")])
def test_failed_requests_end_the_run_and_are_sent_again(ends_by, reasons, server, path, tmp_path):
    recipe = caption_recipe(path, server, max_failed=0.1)
    bad = re.compile(r"[02468] =>$")
    if ends_by == "errors":
        server.always = lambda call: call.reply(500, b"{}") if bad.search(call.seen.text) else call.answer()
    else:
        server.dies_at = 17
    with pytest.raises(RunError, match=rf"caption requests .* got no answer, but max_failed is 0.1\n  {reasons}"):
        run_checked(recipe, tmp_path / "a")
    assert not (tmp_path / "a/_SUCCESS").exists() and not (tmp_path / "a/shards").exists()
    answered = {seen.text for seen in server.asked if seen.status == 200}
    before, server.always = len(server.asked), None
    if ends_by == "death":
        server.revive()
    done = run_checked(recipe, tmp_path / "a")
    sent = [seen.text for seen in server.asked[before:]]
    assert len(answered) > 10 and not answered & set(sent) and len(sent) == len(set(sent)) > 0
    assert statuses(done) == {"ok"}


def refuse_some(call):
    call.reply(400, b"no") if hash64(call.seen.text) >> 20 & 1 else call.answer()


def test_failures_below_the_limit_are_rows_without_a_text(server, path, tmp_path):
    server.always = refuse_some
    done = kit.run_local(caption_recipe(path, server), tmp_path / "a")
    conserved(done)
    rows = done.table("captions").to_pylist()
    assert {(row["status"], row["text"] is None, row["gate"] is None) for row in rows} == {
        ("ok", False, False), ("refused", True, True),
    }  # fmt: skip


@pytest.mark.thorough
def test_a_share_of_the_samples_gets_another_text(server, tmp_path):
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(120), 1)
    server.always = refuse_some
    output = {"mix": {"rewrite": 0.4}, "syn_json": True}
    done = kit.run_local(caption_recipe(path, server, {"output": output}), tmp_path / "a")
    conserved(done)
    samples, changed, failed = kept_samples(tmp_path / "a"), 0, 0
    for files in samples.values():
        fields, text = json.loads(files["json"])["captions"], files["txt"].decode()
        assert text in [fields["original"], *fields["rewrite"].values()]
        changed += text != fields["original"]
        # MobileCLIP's loader draws one of the texts: the original, if none passed
        assert json.loads(files["syn.json"]) == {"syn_text": [*fields["rewrite"].values()] or [fields["original"]]}
        failed += not fields["rewrite"]
    assert failed and 0.15 < changed / len(samples) < 0.5
    sidecar = pq.read_table(tmp_path / "a/shards/00000.parquet", columns=["uid", "caption"]).to_pylist()
    assert {row["uid"]: row["caption"] for row in sidecar} == {uid: m["txt"].decode() for uid, m in samples.items()}


def test_a_larger_share_keeps_the_choices_of_a_smaller_one(server):
    texts = {kind: [Text("", 0, kind)] for kind in ("rewrite", "fused")}

    def choices(**mix):
        captions = {"recaption": {"engine": "llm"}, "fuse": {"engine": "llm"}, "output": {"mix": mix}}
        captions = caption_recipe("a.tar", server, captions).captions
        chosen = [choose_text(captions, 0, f"{i:032x}", texts) for i in range(1000)]
        return [choice and choice[0] for choice in chosen]

    small, large = choices(rewrite=0.2), choices(rewrite=0.5)
    assert all(a in (b, None) for a, b in zip(small, large, strict=True))
    assert 150 < small.count("rewrite") < 250 and 450 < large.count("rewrite") < 550
    both = choices(rewrite=0.4, fused=0.4)
    assert both == choices(fused=0.4, rewrite=0.4) and min(Counter(both).values()) > 150


def test_per_row_is_an_expression(server, path, tmp_path):
    """Tail samples get more texts; further texts of a style have names of their own."""
    (tmp_path / "entries.json").write_text(json.dumps(["red", "dog", "cat", "blue", "1", "2", "3"]))
    per_row = "CASE WHEN rarest <= 3 THEN 3 WHEN entries > 1 THEN 1 ELSE 0 END"
    captions = {"rewrite": {"engine": "llm", "styles": ["human"], "per_row": per_row}}
    recipe = caption_recipe(path, server, captions, match={"metadata": str(tmp_path / "entries.json")})
    done = kit.run_local(recipe, tmp_path / "a")
    counts = {row["entry_id"]: row["survivors"] for row in done.table("entries").to_pylist()}
    matches = {row["uid"]: row["entry_ids"] for row in done.table("matches").to_pylist()}
    kept = [row["uid"] for row in done.table("decisions").to_pylist() if row["kept"]]
    expected = {
        uid: 3 if min(counts[entry] for entry in matches[uid]) <= 3 else int(len(matches[uid]) > 1) for uid in kept
    }
    written = Counter(done.table("captions")["uid"].to_pylist())
    assert {uid: written[uid] for uid in kept} == expected and len(set(expected.values())) > 1
    fields = [json.loads(files["json"])["captions"]["rewrite"] for files in kept_samples(done.folder).values()]
    assert {name for field in fields for name in field} == {"human", "human_2", "human_3"}


REFUSED = [
    ({"rewrite": {"engine": "llm", "per_row": "words * 2.5"}}, ["captions.rewrite.per_row", "DECIMAL", "integer"]),
    ({"rewrite": {"engine": "llm", "per_row": "entries + 1"}}, ["captions.rewrite.per_row: no column 'entries'"]),
    ({"rewrite": None}, ["captions: requests no captions", "recaption, fuse"]),
    ({"output": {"mix": {"fused": 0.5}}}, ["captions.output.mix: no section of captions writes fused"]),
    ({"output": {"mix": {"rewrite": 1.5}}}, ["shares must be from 0 to 1"]),
    ({"gates": {"entries": 0.9}}, ["captions.gates.entries needs match"]),
    ({"gates": {"clip_score": 0.2}}, ["captions.gates.clip_score needs a model named 'clip'", "embeddings: true"]),
    ({"fuse": {"engine": "llm"}}, ["fuse needs recaption"]),
]


def test_refused_recipes(server, path, tmp_path):
    for captions, parts in REFUSED:
        with pytest.raises(RecipeError) as error:
            prepare(caption_recipe(path, server, captions), str(tmp_path / "out"))
        assert all(part in str(error.value) for part in parts), str(error.value)
    captions = caption_recipe("x", server).captions.model_dump(exclude_unset=True)
    for name in ("captions", "Curated_Caption"):
        pq.write_table(pa.table({"url": ["https://x"], "text": ["a red dog"], name: ["x"]}), tmp_path / "x.parquet")
        recipe = kit.recipe_of(str(tmp_path / "x.parquet"), "parquet", captions=captions, measure={})
        with pytest.raises(RecipeError, match=f"the pool has a column '{name}'"):
            prepare(recipe, str(tmp_path / "out"))


def test_a_missing_endpoint_ends_the_run_before_it_writes(server, path, tmp_path):
    server.always = hang
    engine = {"base_url": server.base_url, "model": "tiny-llm", "timeout": 0.3}
    slow = caption_recipe(path, server, {"engines": {"llm": {"openai": engine}}})
    with pytest.raises((RecipeError, RunError), match=r"captions.engines.llm: .*"):
        preflight(prepare(slow, str(tmp_path / "out")))
    server.always = status(401)
    for options in ([], ["--direct_running_mode=multi_processing"]):
        with pytest.raises((RecipeError, RunError), match=r"captions.engines.llm: .*401"):
            preflight(prepare(caption_recipe(path, server), str(tmp_path / "out"), options=options))
    assert not (tmp_path / "out").exists()


def test_the_plan_counts_requests(server, path, tmp_path):
    recipe = caption_recipe(path, server, {"recaption": {"engine": "llm"}})
    prepared = prepare(recipe, str(tmp_path / "a"))
    recaption, rewrite = estimate(prepared.context, prepared.plan.units, prepared.metadata).requests
    plain = kit.run_local(recipe.model_copy(update={"captions": None}), tmp_path / "b")
    assert (rewrite.kind, rewrite.engine, rewrite.answered) == ("rewrite", "llm", 0)
    assert rewrite.requests == 2 * recaption.requests == 2 * sum(plain.table("decisions")["kept"].to_pylist())
    assert rewrite.tokens_out == 77 * rewrite.requests and 40 < rewrite.tokens_in / rewrite.requests < 200
    assert recaption.has_images and not rewrite.has_images


@pytest.mark.thorough
def test_shards_follow_texts_that_were_sent_again(server, tmp_path, monkeypatch):
    """After a kill while shards are written, the next start retries failed requests and writes the shards again."""
    path = kit.write_tars(tmp_path / "tars", kit.make_samples(48), 3)
    recipe = caption_recipe(path, server, output={"rows_per_shard": 10})
    server.always = refuse_some
    emitted = []

    def killed(context, shard, repeated):
        if len(emitted) == 2:
            raise KeyboardInterrupt
        emitted.append(shard)
        return emit_shard(context, shard, repeated)

    monkeypatch.setattr(steps, "emit_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        kit.run_local(recipe, tmp_path / "a")
    monkeypatch.setattr(steps, "emit_shard", emit_shard)
    server.always = None
    done = kit.run_local(recipe, tmp_path / "a")
    conserved(done)
    texts = {uid: json.loads(files["json"])["captions"] for uid, files in kept_samples(tmp_path / "a").items()}
    passed = {(row["uid"], row["style"]) for row in done.table("captions").to_pylist() if row["gate"] == "passed"}
    assert {(uid, style) for uid, fields in texts.items() for style in fields["rewrite"]} == passed
    assert statuses(done) == {"ok"}


def test_a_pool_that_is_too_damaged_sends_no_request(server, path, tmp_path):
    (tmp_path / "tars/bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(RunError, match="could not be read"):
        run_checked(caption_recipe(f"{tmp_path}/tars/*.tar", server, max_failed_files=0.1), tmp_path / "a")
    assert not server.asked


@pytest.mark.thorough
def test_texts_of_forgotten_samples_are_deleted_and_not_sent_again(server, tmp_path, monkeypatch):
    """Also from files that tables of small units share."""
    monkeypatch.setattr("curate.pool.plan.UNIT_BYTES", (1, 1))
    monkeypatch.setattr("curate.publish.publish.MIN_UNITS", 6)
    path = kit.write_tars(tmp_path / "tars", told_apart(24), 8)
    done = kit.run_local(caption_recipe(path, server), tmp_path / "a")
    captions, asked, table = done.table("captions"), len(server.asked), "tables/captions/00000-00007.parquet"
    (work,) = ask(done.folder, "caption_work")
    assert work["sent"] == asked == len(captions)
    before = kit.lasting_files(done.folder)
    (done.folder / "_SUCCESS").unlink()
    conserved(kit.run_local(caption_recipe(path, server), done.folder))
    assert kit.lasting_files(done.folder) == before
    assert ask(done.folder, "caption_work") == [work | {"sent": 0, "seconds": 0.0, "tokens_sent": 0}]

    victim = captions["uid"][5].as_py()
    original = next(row["caption"] for row in done.table("samples").to_pylist() if row["uid"] == victim)
    assert len(left_of(done.folder, [original])) >= 5
    forget(str(done.folder), uids(victim))
    conserved(done)
    left = captions.filter(pc.not_equal(captions["uid"], victim))
    assert left_of(done.folder, [original]) == [] and done.table("captions").equals(left)
    assert victim not in done.table("answers")["uid"].to_pylist()
    resharded = caption_recipe(path, server, output={"rows_per_shard": 9})
    later = kit.run_local(resharded, tmp_path / "b", reuse=done.folder)
    assert left_of(later.folder, [original]) == [] and later.table("captions").equals(left)
    (done.folder / table).unlink()
    (done.folder / "_SUCCESS").unlink(missing_ok=True)
    again = kit.run_local(caption_recipe(path, server), done.folder)
    conserved(again)
    assert len(server.asked) == asked and left_of(again.folder, [original]) == []
