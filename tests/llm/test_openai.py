"""The HTTP engine against a server on this machine that does what endpoints do at their worst."""

import io
import itertools
import logging
import random
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.base.errors import RecipeError, RunError
from curate.llm import endpoint, openai
from curate.llm.endpoint import MAX_NO_REPLIES, MAX_REFUSALS
from curate.llm.engine import ERRORS, Answer, Message, Request, Sampling
from curate.llm.openai import OpenAI, OpenAIEngine, choose_pause
from curate.recipe.recipe import parse_recipe
from tests.kit import llm_server as do
from tests.kit.llm_server import TOKENS_IN, TOKENS_OUT, FaultServer, completion, echo

KEY = "sk-5ecret/+key=="


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(openai, "MAX_PAUSE", 0.3)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def server():
    with FaultServer() as server:
        yield server


@pytest.fixture
def open_engine(server):
    def open_engine(**options):
        defaults = {"base_url": server.base_url, "model": "tiny-llm", "timeout": 60.0, "attempts": 3}
        return OpenAIEngine(OpenAI(**{**defaults, **options}))

    return open_engine


def prompts(*texts):
    return [Request(f"{i:032x}", "rewrite", "human", 0, prompt=text) for i, text in enumerate(texts)]


def chats(*texts):
    return [replace(request, prompt=None, messages=(Message("user", request.prompt),)) for request in prompts(*texts)]


def texts(count, of="caption"):
    return [f"{of} {i}" for i in range(count)]


def answered(text):
    return Answer(echo(text), None, TOKENS_IN, TOKENS_OUT, "stop")


def whole(server):
    """The texts that were answered 200, in order."""
    return sorted(seen.text for seen in server.asked if seen.status == 200)


def one(engine, text="a dog"):
    (answer,) = engine.ask(prompts(text))
    return answer


def test_prompts_chats_and_images_are_answered_in_order(server, open_engine):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP")
    requests = [r for pair in zip(prompts(*texts(20)), chats(*texts(20, "chat")), strict=True) for r in pair]
    requests.append(replace(chats("what is it?")[0], image=file.getvalue()))
    answers = open_engine(extra={"top_k": 20}).ask(requests)
    assert answers == [answered(request.prompt or request.messages[0].text) for request in requests]
    paths = {seen.text: seen.path for seen in server.asked}
    assert paths["caption 3"] == "/v1/completions" and paths["chat 3"] == paths["what is it?"] == "/v1/chat/completions"
    for seen in server.asked:
        assert seen.body["model"] == "tiny-llm" and seen.body["top_k"] == 20
        assert seen.headers["Content-Type"] == "application/json" and "Authorization" not in seen.headers


def test_nothing_is_asked_where_nothing_is_wanted(server, open_engine):
    assert open_engine().ask([]) == []
    assert server.seen == []


def test_what_cannot_be_sent_costs_no_other(server, open_engine):
    requests = chats("a", "b", "c")
    requests[1] = replace(requests[1], image=b"BM a bitmap")
    first, second, third = open_engine().ask(requests)
    assert first == answered("a") and third == answered("c")
    assert second.text is None and second.error.startswith("no_image: ")
    assert whole(server) == ["a", "c"]


def test_requests_of_a_group_are_sent_together(server, open_engine):
    requests = [replace(request, group=f"group {i % 3}") for i, request in enumerate(prompts(*texts(12)))]
    assert open_engine(concurrency=1).ask(requests) == [answered(request.prompt) for request in requests]
    assert [seen.text for seen in server.asked] == [f"caption {i}" for g in range(3) for i in range(g, 12, 3)]


def test_answers_come_as_they_are_ready(server, open_engine):
    """What is ready does not wait for what hangs; who stops asking ends what is under way."""
    server.faults = {"a dog": [do.hang]}
    engine = open_engine(timeout=60, concurrency=2)
    answers = engine.answers(prompts("a dog", "a cat", "a bird"))
    assert [next(answers), next(answers)] == [(1, answered("a cat")), (2, answered("a bird"))]
    answers.close()
    assert engine.ask(prompts("a fish", "a cow")) == [answered("a fish"), answered("a cow")]


def test_the_limit_holds_over_all_threads_and_is_reached(server, open_engine):
    def wait_for_others(handler):
        ends = time.monotonic() + 20
        while server.most < 5 and time.monotonic() < ends:
            time.sleep(0.01)
        handler.answer()

    server.latency, server.always = 0.01, wait_for_others
    engine = open_engine(concurrency=5, timeout=60)
    parts = [texts(10, f"thread {i}") for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda part: engine.ask(prompts(*part)), parts))
    assert found == [[answered(text) for text in part] for part in parts]
    assert server.most == 5
    assert len({seen.connection for seen in server.asked}) == 5  # kept alive


RETRIED = {
    "429": (do.status(429), "busy"), "429 at a time": (do.status(429, Retry_After="0"), "busy"),
    "408": (do.status(408), "timeout"), "500": (do.status(500, {"error": {"message": "CUDA error"}}), "busy"),
    "503": (do.status(503, b"<html>Service Unavailable</html>"), "busy"), "529": (do.status(529), "busy"),
    "reset": (do.reset, "unreachable"), "reset after headers": (do.reset_after_headers, "unreachable"),
    "cut": (do.cut, "unreachable"), "no http": (do.no_http, "unreachable"),
}  # fmt: skip
FINAL = {
    "400": (do.status(400, {"error": {"message": "bad image"}}), "refused: 400 Bad Request: bad image"),
    "401": (do.status(401), "refused: 401 Unauthorized"),
    "403": (do.status(403, b"Forbidden by\n policy"), "refused: 403 Forbidden: Forbidden by policy"),
    "404": (do.status(404, {"detail": "Not Found"}), "refused: 404 Not Found: Not Found"),
    "too long": (do.status(400, {"message": "This model's maximum context length is 8."}), "too_long: 400"),
    "truncated": (do.body(b'{"choices": [{"text": "a do'), "malformed: not JSON"),
    "not JSON": (do.body(b"<html>hello</html>"), "malformed: HTML, not JSON"),
    "no choices": (do.body({"choices": []}), "malformed: it holds no choice with a text"),
    "null": (do.body(completion(None)), "empty: "),
    "refusal": (do.body(completion(None, refusal="I can't.")), "refused: the model refused: I can't."),
    "no content": (do.status(204), "malformed: not JSON"),
    "gzip": (do.status(200, b"not gzip", Content_Encoding="gzip"), "malformed: not JSON"),
}


@pytest.mark.parametrize("name", RETRIED)
def test_passing_faults_are_tried_again_and_at_last_told(server, open_engine, name):
    fault, code = RETRIED[name]
    server.faults = {"a dog": [fault, fault], "a cat": [fault] * 3}
    dog, cat, fish = open_engine().ask(prompts("a dog", "a cat", "a fish"))
    assert dog == answered("a dog") and fish == answered("a fish")
    assert cat.text is None and cat.error.startswith(f"{code}: ") and cat.error.endswith("(the last of 3 attempts)")
    assert whole(server) == ["a dog", "a fish"] or name.startswith("reset after") or name == "cut"
    assert sorted(seen.text for seen in server.asked) == ["a cat"] * 3 + ["a dog"] * 3 + ["a fish"]


REFUSALS_OF_ALL = {
    "401": (do.status(401, {"error": {"message": "key expired"}}), "refused", "401 Unauthorized: key expired"),
    "403": (do.status(403, b"<html>blocked</html>"), "refused", "403 Forbidden"),
    "404": (do.status(404, {"error": "no such model"}), "refused", "404 Not Found: no such model"),
    "login": (do.status(302, b"", Location="https://login"), "refused", "302 Found: a redirect to https://login"),
    "HTML": (do.body(b"\n<!DOCTYPE html><html>maintenance</html>"), "malformed", "HTML, not JSON"),
    "error": (do.body({"error": {"message": "quota"}}), "malformed", "it holds no choice with a text; it says: quota"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", [prompts, chats])
@pytest.mark.parametrize("name", REFUSALS_OF_ALL)
def test_an_endpoint_that_answers_nothing_any_more_is_given_up(server, open_engine, name, form):
    fault, code, said = REFUSALS_OF_ALL[name]
    engine = open_engine(concurrency=4)
    assert engine.ask(form(*texts(30))) == [answered(text) for text in texts(30)]
    server.always = fault
    before = len(server.asked)
    answers = engine.ask(form(*texts(2_000, "more")))
    why = f"{code}: stopped, since it answers no request: {said}"
    assert {answer.error.split(": ")[0] for answer in answers} == {code}
    assert sum(answer.error.startswith(why) for answer in answers) > 1_800
    assert MAX_REFUSALS < len(server.asked) - before < 200
    assert one(engine, "a later one").error.startswith(f"{code}: ")  # it is tried
    server.always = None
    assert engine.ask(form(*texts(30, "again"))) == [answered(text) for text in texts(30, "again")]


@pytest.mark.parametrize("name", REFUSALS_OF_ALL)
def test_what_only_some_requests_meet_costs_no_other(server, open_engine, name):
    """Many of them in a row, as prompts may be that a filter of the endpoint's blocks."""
    fault, code, _ = REFUSALS_OF_ALL[name]
    bad = texts(3 * MAX_REFUSALS, "blocked")
    server.always = lambda handler: fault(handler) if handler.seen.text.startswith("blocked") else handler.answer()
    answers = open_engine(concurrency=4).ask(prompts(*bad, *texts(10)))
    assert answers[len(bad) :] == [answered(text) for text in texts(10)]
    assert all(answer.error.startswith(f"{code}: ") and "stopped" not in answer.error for answer in answers[: len(bad)])
    asked = [seen.text for seen in server.asked]
    assert [asked.count(text) for text in bad] == [1] * len(bad)
    assert asked.count("Hello") <= 3


def test_a_fault_found_with_each_request_is_not_held_against_the_endpoint(server, open_engine):
    server.always = do.status(400, {"error": {"message": "no"}})
    answers = open_engine(concurrency=4).ask(prompts(*texts(30)))
    assert {answer.error for answer in answers} == {"refused: 400 Bad Request: no"}
    assert sorted(seen.text for seen in server.asked) == sorted(texts(30))


@pytest.mark.parametrize("name", FINAL)
def test_lasting_faults_are_told_at_once_and_cost_no_other(server, open_engine, name):
    fault, error = FINAL[name]
    server.faults = {"a dog": [fault]}
    dog, cat = open_engine().ask(prompts("a dog", "a cat"))
    assert dog.text is None and dog.error.startswith(error) and "\n" not in dog.error
    assert cat == answered("a cat")
    assert len(server.asked) == 2


def test_parts_and_missing_usage_are_texts(server, open_engine):
    parts = completion([{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}])
    del parts["usage"]
    server.faults = {"a dog": [do.body(parts)]}
    assert one(open_engine()) == Answer("a dog", finish="stop")


def test_retry_after_is_waited_for_but_not_for_ever(server, open_engine):
    server.faults = {"a dog": [do.status(429, Retry_After="0.15")], "a cat": [do.status(503, Retry_After="3600")]}
    assert open_engine().ask(prompts("a dog", "a cat")) == [answered("a dog"), answered("a cat")]
    waited = {}
    for text in ("a dog", "a cat"):
        first, second = (seen.at for seen in server.asked if seen.text == text)
        waited[text] = second - first
    assert waited["a dog"] >= 0.15 and 0.3 <= waited["a cat"] < 600


def test_a_storm_passes(server, open_engine):
    """Ten calls at a time are let through, the others are told to come back."""
    lock, running, is_crowded = threading.Lock(), [0], threading.Event()

    def limited(handler):
        with lock:
            running[0] += 1
            admitted = running[0] <= 10
        is_crowded.wait(60) if admitted else is_crowded.set()
        handler.answer() if admitted else handler.reply(429, {"error": "slow down"})
        with lock:
            running[0] -= 1

    server.always = limited
    wanted = texts(60)
    assert open_engine(concurrency=20, attempts=60).ask(prompts(*wanted)) == [answered(text) for text in wanted]
    assert sum(seen.status == 429 for seen in server.asked) > 0
    assert whole(server) == sorted(wanted)


def test_every_request_ends_as_its_faults_say_and_is_answered_once(server, open_engine):
    """An oracle: the first fault that lasts, or the fault of the last attempt, or else the text."""
    draw = random.Random(4)
    passing, lasting = list(RETRIED.values()), list(FINAL.values())
    wanted, expected = texts(120), {}
    for text in wanted:
        chosen = [draw.choice(passing) for _ in range(draw.choice([0, 0, 1, 2, 3]))]
        if draw.random() < 0.2:
            chosen.append(draw.choice(lasting))
        server.faults[text] = [fault for fault, _ in chosen]
        met = next((error for fault, error in chosen[:3] if (fault, error) in lasting), None)
        expected[text] = met or (chosen[2][1] if len(chosen) > 2 else None)
    requests = prompts(*wanted)
    by_digest = {request.digest("tiny-llm"): request.prompt for request in requests}
    assert len(by_digest) == 120
    answers = open_engine(concurrency=16).ask(requests)
    for text, answer in zip(wanted, answers, strict=True):
        if expected[text] is None:
            assert answer == answered(text)
        else:
            assert answer.text is None and answer.error.startswith(expected[text])
            assert answer.error.split(":")[0] in ERRORS
    for text in by_digest.values():
        calls = [seen for seen in server.asked if seen.text == text]
        assert len(calls) <= 3
        if expected[text] is None:
            *failed, last = [seen.status for seen in calls]
            assert last == 200 and len(failed) < 3
            assert not server.faults[text]
    assert 40 < sum(error is None for error in expected.values()) < 100


def test_a_call_that_hangs_ends_and_keeps_no_other(server, open_engine):
    server.faults = {"a dog": [do.hang], "a cat": [do.hang] * 3}
    start = time.monotonic()
    dog, cat, *others = open_engine(timeout=1, attempts=3).ask(prompts("a dog", "a cat", *texts(10)))
    assert dog == answered("a dog") and others == [answered(text) for text in texts(10)]
    assert cat.error == "timeout: no complete answer in 1 s (the last of 3 attempts)"
    assert 3 < time.monotonic() - start < 60  # of a server that never answers


@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_trickle_is_no_answer(server, open_engine, where):
    """Each byte comes in time, the whole does not."""
    server.faults = {"a dog": [do.trickle(where)]}
    start = time.monotonic()
    assert one(open_engine(timeout=0.3, attempts=1)).error.startswith("timeout: ")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("chunked", [False, True])
def test_floods_are_cut_off(server, open_engine, chunked):
    server.faults = {"a dog": [do.flood(100_000_000, chunked)], "a cat": [do.flood(100_000_000, chunked, 400)]}
    dog, cat, fish = open_engine().ask(prompts("a dog", "a cat", "a fish"))
    assert dog.error == "malformed: the answer is longer than 1,000,000 bytes" and dog.text is None
    assert cat.error == "refused: 400 Bad Request" and fish == answered("a fish")
    assert server.flooded < 2 * 15_000_000  # the rest of what the sockets' buffers hold


def test_answers_below_the_limit_are_whole(server, open_engine):
    long = "word " * 190_000
    server.faults = {"a dog": [do.body(completion(long))]}
    assert one(open_engine()).text == long


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server, open_engine, status):
    with FaultServer() as other:
        server.faults = {
            "a dog": [do.status(status, Location=f"{other.base_url}/completions")],
            "a cat": [do.status(status, Location="/v1/chat/completions")],
        }
        dog, cat = open_engine(key="TEST_KEY").ask(prompts("a dog", "a cat"))
        assert other.seen == []
    assert dog.error.startswith(f"refused: {status} ") and f"a redirect to {other.base_url}/completions" in dog.error
    assert cat.error.startswith(f"refused: {status} ") and len(server.asked) == 2


def test_an_endpoint_that_dies_is_found_out_once(server, open_engine, monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.1)
    server.dies_at = 41
    engine = open_engine(concurrency=8, attempts=4)
    wanted = texts(2_000)
    start = time.monotonic()
    answers = engine.ask(prompts(*wanted))
    took = time.monotonic() - start
    served = [text for text, answer in zip(wanted, answers, strict=True) if answer.error is None]
    assert served == [text for text in wanted if text in set(whole(server))] and 20 < len(served) <= 40
    errors = [answer.error for answer in answers if answer.error]
    assert all(error.startswith("unreachable: ") for error in errors)
    assert sum("attempts)" in error for error in errors) <= 3 * MAX_NO_REPLIES
    assert (
        sum(
            error == f"unreachable: stopped after {MAX_NO_REPLIES} requests in a row without a reply"
            for error in errors
        )
        > 1_900
    )
    assert took < 60  # each with its own pauses: 2,000 * 0.35 s / 8 = 87 s

    start = time.monotonic()
    assert all(answer.error.startswith("unreachable: ") for answer in engine.ask(prompts(*wanted)))
    assert 0.01 < time.monotonic() - start < 60  # it was tried
    server.revive()
    rest = [text for text in wanted if text not in set(served)][:10]
    assert engine.ask(prompts(*rest)) == [answered(text) for text in rest]
    assert len(whole(server)) == len(set(whole(server))) == len(served) + 10


def test_what_waits_for_another_attempt_gives_up_with_the_others(server, open_engine, monkeypatch):
    monkeypatch.setattr(openai, "MAX_PAUSE", 30.0)
    server.faults = {"a dog": [do.status(429, Retry_After="30")]}
    server.always = do.reset
    start = time.monotonic()
    dog, *others = open_engine(concurrency=4).ask(prompts("a dog", *texts(20)))
    assert time.monotonic() - start < 20  # else 30 s
    assert dog.error.startswith("unreachable: stopped") and [seen.text for seen in server.asked].count("a dog") == 1
    assert all(answer.error.startswith("unreachable: ") for answer in others)


def test_threads_share_what_they_know_of_a_dead_endpoint(server, open_engine, monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.1)
    server.die()
    engine = open_engine(concurrency=MAX_NO_REPLIES, attempts=3)
    start = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(engine.ask, [prompts(*texts(500))] * 4))
    assert all(answer.error.startswith("unreachable: ") for part in parts for answer in part)
    assert time.monotonic() - start < 30  # else 2,000 / 8 * 0.3 s = 75 s


def test_an_endpoint_that_hangs_on_all_is_found_out_too(server, open_engine):
    server.always = do.hang
    answers = open_engine(concurrency=MAX_NO_REPLIES, attempts=2, timeout=0.2).ask(prompts(*texts(400)))
    assert len(server.asked) <= 4 * MAX_NO_REPLIES  # else 800
    assert {answer.error.split(":")[0] for answer in answers} == {"timeout", "unreachable"}


@pytest.mark.parametrize("code", [500, 429, 408])
def test_an_endpoint_that_fails_on_all_is_given_up_and_warned_of(server, open_engine, caplog, monkeypatch, code):
    # Each reply is 10 s after the one before.
    clock = SimpleNamespace(monotonic=itertools.count(step=10).__next__, time=time.time)
    monkeypatch.setattr(endpoint, "time", clock)
    monkeypatch.setattr(openai, "MAX_PAUSE", 0.01)
    server.always = do.status(code, b'{"message": "try again"}')
    engine = open_engine(attempts=20, concurrency=4)
    answers = engine.ask(prompts(*texts(500)))
    stopped = [answer.error for answer in answers if " s without an answer to any request: " in answer.error]
    assert len(stopped) > 400 and stopped[0].startswith(("busy: ", "timeout: ")) and "try again" in stopped[0]
    assert all(": stopped after 600 s " in error for error in stopped)
    words = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(words) == 10
    for seconds, word in zip(range(30, 600, 60), words, strict=True):
        assert word.startswith(f"{server.base_url}: has answered no request for {seconds} s: {code} ")
    server.always = None  # one that has come back is asked as ever
    assert engine.ask(prompts("a dog")) == [answered("a dog")]


def test_an_endpoint_that_fails_on_some_is_not_given_up(server, open_engine, monkeypatch):
    # Each failure is a second after the last.
    clock = SimpleNamespace(monotonic=itertools.count().__next__, time=time.time)
    monkeypatch.setattr(endpoint, "time", clock)
    server.faults = {text: [do.status(500)] * 2 for text in texts(60)[::2]}
    answers = open_engine(patience=30, concurrency=4).ask(prompts(*texts(60)))  # of 60 failures
    assert [answer.error for answer in answers] == [None] * 60


def test_long_lists_of_models_are_read(server, open_engine):
    server.models = [*(f"org/model-{number}" for number in range(100_000)), "tiny-llm"]
    open_engine().check()


def test_an_endpoint_that_restarts_is_waited_for(server, open_engine, monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(openai, "MAX_PAUSE", 0.4)
    server.dies_at = 20

    def back():
        server.is_dead.wait()
        time.sleep(0.2)
        server.revive()

    threading.Thread(target=back, daemon=True).start()
    wanted = texts(50)
    assert open_engine(concurrency=4, attempts=30).ask(prompts(*wanted)) == [answered(text) for text in wanted]
    assert whole(server) == sorted(wanted)


def test_the_key_is_sent_and_shown_nowhere(server, open_engine, caplog):
    caplog.set_level(logging.DEBUG)

    def tell(status, wrap=lambda told: told):
        def fault(handler):
            handler.reply(status, wrap(f"no such key: {handler.headers['Authorization']}"), {"X-Key": "-"})

        return fault

    server.faults = {
        "a": [tell(400, lambda told: {"error": {"message": told, "code": KEY}})], "b": [tell(403, str.encode)],
        "c": [tell(500)] * 3, "d": [tell(200, lambda told: completion(None, refusal=told))],
        "e": [tell(200, lambda told: completion(None, finish=KEY))],
        "f": [tell(400, lambda told: {"message": "x" * 285 + told})], "g": [tell(200, lambda told: {"error": told})],
        "h": [do.reset] * 3,
    }  # fmt: skip
    engine = open_engine(key="TEST_KEY")
    answers = engine.ask(prompts(*"abcdefghi"))
    assert {seen.headers["Authorization"] for seen in server.asked} == {f"Bearer {KEY}"}
    assert [answer.error is None for answer in answers] == [False] * 8 + [True]
    assert answers[0].error == "refused: 400 Bad Request: no such key: Bearer [key] ([key])"
    shown = [repr(answers), repr(engine), repr(engine.options), repr(vars(engine)), engine.model, caplog.text]
    for fault in (tell(401), tell(400), tell(503), lambda handler: handler.reply(200, {"data": [{"id": KEY}]})):
        server.always = fault
        with pytest.raises((RecipeError, RunError)) as caught:
            engine.check()
        shown.append(str(caught.value))
        shown.append(repr(caught.value))
    assert "httpcore2" in caplog.text  # logs are looked at indeed
    for text in shown:
        assert KEY not in text and "sk-5ecret" not in text


def test_a_key_in_an_address_to_go_to_is_not_shown(server, open_engine, caplog):
    """Below INFO, httpcore logs the headers that an endpoint sends."""
    caplog.set_level(logging.INFO)
    server.always = do.status(307, Location=f"http://127.0.0.1/?key={KEY}")
    error = one(open_engine(key="TEST_KEY")).error
    assert "redirect to http://127.0.0.1/?key=[key]," in error and KEY not in caplog.text


def test_a_missing_key_is_told_by_its_variable(server, open_engine, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    for call in (OpenAIEngine.check, lambda engine: engine.ask(prompts("a"))):
        with pytest.raises(RecipeError, match="environment variable TEST_KEY is not set"):
            call(open_engine(key="TEST_KEY"))
    assert server.seen == []


def test_details_are_one_printable_line(server, open_engine):
    server.faults = {"a dog": [do.status(400, {"message": "a\r\n\x1b[31mb\u2028\u202ec " + "x" * 10_000})]}
    error = one(open_engine()).error
    assert error.startswith("refused: 400 Bad Request: a [31mb c xxx") and error.isprintable() and len(error) == 300


def test_what_names_the_model():
    def name(**extra):
        return OpenAIEngine(OpenAI(base_url="http://localhost:1/v1", model="org/tiny", extra=extra)).model

    assert name() == "org/tiny"
    assert name(top_k=20, a="ä") == name(a="ä", top_k=20) == 'org/tiny {"a":"ä","top_k":20}'
    assert name(top_k=21) != name(top_k=20)
    other = OpenAIEngine(
        OpenAI(base_url="https://example.invalid", model="org/tiny", key="KEY", concurrency=1, timeout=1.0, attempts=1)
    )
    assert other.model == name()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000/v1"}, "base_url: .*accepted: an address such as"),
        ({"base_url": "ftp://localhost/v1"}, "base_url: 'ftp://localhost/v1'"),
        ({"base_url": "http:///v1"}, "base_url: 'http:///v1'"), ({"base_url": "http://local host/v1"}, "base_url"),
        ({"base_url": "http://localhost:port/v1"}, "base_url: is not an address"),
        ({"base_url": "http://user:sk-5ecret@localhost/v1"}, "base_url: contains a user"),
        ({"base_url": "http://localhost/v1?key=sk-5ecret"}, "base_url: contains a user, a password, a query"),
        ({"key": "sk-5ecret"}, "key: is not the name of an environment variable"),
        ({"key": ""}, "key: is not the name"), ({"model": ""}, "model: .*at least 1 character"),
        ({"concurrency": 0}, "concurrency: .*greater than or equal to 1 .found 0"),
        ({"attempts": 0}, "attempts: .*found 0"), ({"timeout": 0.0}, "timeout: .*found 0.0"),
        ({"timeout": float("nan")}, "timeout: .*found nan"), ({"timeout": float("inf")}, "timeout: .*found inf"),
        ({"extra": {"stream": True, "n": 2}}, "extra: n, stream cannot be set"),
        ({"extra": {"api_key": "sk-5ecret"}}, "extra: api_key looks like a secret"),
        ({"extra": {"a": float("nan")}}, "extra: is not accepted in JSON"),
        ({"extra": {"a": {1, 2}}}, "extra: is not accepted in JSON"),
    ],
)  # fmt: skip
def test_wrong_options_are_reported_by_their_key(options, message):
    asked = {"openai": {"base_url": "http://localhost:8000/v1", "model": "tiny", **options}}
    captions = {"engines": {"llm": asked}, "rewrite": {"engine": "llm"}}
    source = {"name": "a", "format": "webdataset", "path": "a.tar"}
    with pytest.raises(RecipeError, match=rf"captions\.engines\.llm\.openai\.{message}") as caught:
        parse_recipe({"input": source, "captions": captions})
    assert "5ecret" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 10_000))
def test_pauses_double_and_are_drawn_whole(attempt):
    pauses = [choose_pause(None, attempt) for _ in range(20)]
    longest = min(openai.MAX_PAUSE, openai.FIRST_PAUSE * 2 ** min(attempt - 1, 99))
    assert all(0 <= pause <= longest for pause in pauses) and max(pauses) > longest / 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 50), st.floats(0, 1e9))
def test_the_pause_that_the_endpoint_asks_for_is_kept(attempt, asked):
    pause = choose_pause(asked, attempt)
    assert min(asked, openai.MAX_PAUSE) <= pause <= openai.MAX_PAUSE + openai.FIRST_PAUSE
    assert pause <= asked + openai.FIRST_PAUSE


def test_a_missing_package_is_named_with_its_extra(server, open_engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RecipeError, match=r"openai .*pip install '\.\[captions\]'"):
        open_engine().check()


def test_check_passes_where_the_model_is(server, open_engine):
    open_engine(base_url=f"{server.base_url}/", key="TEST_KEY").check()
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.headers["Authorization"]) == ("GET", "/v1/models", f"Bearer {KEY}")


def test_check_names_near_models(server, open_engine):
    with pytest.raises(
        RecipeError, match=re.escape(server.base_url) + r": has no model 'tiny-lm'; it has 'tiny-vlm', 'tiny-llm'$"
    ):
        open_engine(model="tiny-lm").check()
    server.models = [f"org/model-{i}" for i in range(50)]
    with pytest.raises(RecipeError, match=r"has no model 'zzz'; it has 'org/model-0', .* \(of 50\)$"):
        open_engine(model="zzz").check()
    server.models = []
    with pytest.raises(RecipeError, match=r"it has none$"):
        open_engine().check()


@pytest.mark.parametrize("key", [None, "TEST_KEY"])
@pytest.mark.parametrize("status", [401, 403])
def test_check_tells_of_keys(server, open_engine, status, key):
    server.always = do.status(status, {"error": {"message": "Incorrect API key"}})
    remedy = "the key in the environment variable TEST_KEY is not accepted" if key else "it needs a key: give `key`"
    with pytest.raises(RecipeError, match=f"{server.base_url}/models: {remedy}.*; {status} .*: Incorrect API key"):
        open_engine(key=key).check()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (do.status(500), RunError, "fails or is too busy; 500"),
        (do.status(429, {"error": "quota"}), RunError, "fails or is too busy; 429 Too Many Requests: quota"),
        (do.reset, RunError, r"cannot be reached \(ReadError.*\)"),
        (do.no_http, RunError, "cannot be reached"),
        (do.hang, RunError, "no complete answer in 0.3 s"),
        (
            do.status(307, Location="https://example.invalid/v1/models"),
            RecipeError,
            "a redirect to https://example.invalid/v1",
        ),
        (do.status(400, {"error": "no"}), RecipeError, "models: 400 Bad Request: no. Accepted: the address of"),
        (do.body(b"<html>hello</html>"), RecipeError, "not a list of models. Accepted: .* ends in /v1"),
        (do.body({"models": []}), RecipeError, "not a list of models"),
        (do.flood(20_000_000), RecipeError, "not a list of models"),
    ],
)
def test_check_tells_what_it_found(server, open_engine, fault, kind, message):
    server.always = fault
    with pytest.raises(kind, match=f"^{server.base_url}.*{message}"):
        open_engine(timeout=0.3 if fault is do.hang else 60).check()


def test_check_tells_of_nobody_at_home(server, open_engine):
    server.die()
    with pytest.raises(
        RunError, match=f"^{server.base_url}: cannot be reached .*ConnectError.*; accepted: a running endpoint"
    ):
        open_engine().check()
    with pytest.raises(RunError, match="cannot be reached"):
        open_engine(base_url="http://nobody.invalid/v1").check()


@pytest.mark.parametrize("status", [404, 405])
def test_check_asks_for_a_token_where_no_models_are_listed(server, open_engine, status):
    def without(*paths):
        def fault(handler):
            handler.reply(status, b"") if handler.path.removeprefix("/v1/") in paths else handler.answer()

        return fault

    server.always = without("models")
    open_engine().check()
    assert server.seen[-1].path == "/v1/chat/completions" and server.seen[-1].body["max_tokens"] == 1
    server.always = without("models", "chat/completions")
    open_engine().check()
    assert server.seen[-1].path == "/v1/completions" and server.seen[-1].body["max_tokens"] == 1
    server.always = without("models", "chat/completions", "completions")
    with pytest.raises(RecipeError, match=rf"{server.base_url}/completions: {status} .*usually ends in /v1"):
        open_engine().check()
    server.always = lambda handler: handler.reply(404 if handler.command == "GET" else 401, b"")
    with pytest.raises(RecipeError, match=r"chat/completions: it needs a key"):
        open_engine().check()
    server.always = lambda handler: handler.reply(404 if handler.command == "GET" else 200, b"welcome")
    with pytest.raises(RecipeError, match=r"chat/completions: the answer is malformed: not JSON"):
        open_engine().check()


def test_the_proxy_of_the_environment_is_used(server, open_engine, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    assert one(open_engine(base_url="http://endpoint.invalid/v1")) == answered("a dog")
    (seen,) = server.asked
    assert seen.path == "http://endpoint.invalid/v1/completions"
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1")
    with pytest.raises(RecipeError, match="the proxy that the environment names cannot be used"):
        open_engine().check()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(open_engine, tmp_path, monkeypatch):
    names = ("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=127.0.0.1")
    new = (
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
        "1",
    )  # fmt: skip
    subprocess.run([*new, *names, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with FaultServer(tls=context) as secure:
        answer = one(open_engine(base_url=secure.base_url, key="TEST_KEY"))
        assert answer.error.startswith("unreachable: ") and "CERTIFICATE_VERIFY_FAILED" in answer.error
        assert secure.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert one(open_engine(base_url=secure.base_url)) == answered("a dog")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_what_is_asked(server, open_engine):
    engine = open_engine(concurrency=2)
    server.always = do.hang

    def interrupt(handler):
        while len(server.asked) < 2:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        do.hang(handler)

    server.faults = {"caption 1": [interrupt]}
    with pytest.raises(KeyboardInterrupt):
        engine.ask(prompts(*texts(100)))
    time.sleep(0.4)
    assert len(server.asked) == 2


def test_sampling_is_sent_for_each_request(server, open_engine):
    requests = [
        replace(request, sampling=Sampling(0.5, 0.9, 5, ("\n",), i)) for i, request in enumerate(prompts(*texts(3)))
    ]
    open_engine().ask(requests)
    assert sorted(seen.body["seed"] for seen in server.asked) == [0, 1, 2]
    assert all((seen.body["max_tokens"], seen.body["stop"]) == (5, ["\n"]) for seen in server.asked)
