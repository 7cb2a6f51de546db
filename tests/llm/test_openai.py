"""The HTTP engine against a server on this machine that misbehaves as endpoints do."""

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


def texts(count, name="caption"):
    return [f"{name} {i}" for i in range(count)]


def answered(*texts):
    return [Answer(echo(text), None, TOKENS_IN, TOKENS_OUT, "stop") for text in texts]


def texts_with_status_200(server):
    return sorted(seen.text for seen in server.asked if seen.status == 200)


def ask_one(engine, text="a dog"):
    (answer,) = engine.ask(prompts(text))
    return answer


# ---- requests


def test_prompts_chats_and_images_are_answered_in_order(server, open_engine):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP")
    requests = [r for pair in zip(prompts(*texts(20)), chats(*texts(20, "chat")), strict=True) for r in pair]
    requests = [replace(r, sampling=Sampling(0.5, 0.9, 5, ("\n",), seed)) for seed, r in enumerate(requests)]
    requests.append(replace(chats("what is it?")[0], image=file.getvalue()))
    bitmap = replace(chats("not sent")[0], image=b"BM a bitmap")
    *answers, unsent = open_engine(extra={"top_k": 20}).ask([*requests, bitmap])
    assert answers == answered(*(request.prompt or request.messages[0].text for request in requests))
    assert unsent.text is None and unsent.error.startswith("no_image: ")
    paths = {seen.text: seen.path for seen in server.asked}
    assert paths["caption 3"] == "/v1/completions" and paths["chat 3"] == paths["what is it?"] == "/v1/chat/completions"
    assert "not sent" not in paths
    for seen in server.asked:
        assert seen.body["model"] == "tiny-llm" and seen.body["top_k"] == 20
        assert seen.headers["Content-Type"] == "application/json" and "Authorization" not in seen.headers
    sampled = [seen.body for seen in server.asked if seen.text != "what is it?"]
    assert sorted(body["seed"] for body in sampled) == list(range(40))
    assert all((body["max_tokens"], body["stop"]) == (5, ["\n"]) for body in sampled)
    before = len(server.seen)
    assert open_engine().ask([]) == [] and len(server.seen) == before


def test_requests_of_a_group_are_sent_together(server, open_engine):
    requests = [replace(request, group=f"group {i % 3}") for i, request in enumerate(prompts(*texts(12)))]
    assert open_engine(concurrency=1).ask(requests) == answered(*texts(12))
    assert [seen.text for seen in server.asked] == [f"caption {i}" for g in range(3) for i in range(g, 12, 3)]


def test_answers_arrive_as_they_are_ready(server, open_engine):
    """They do not wait for a request that hangs; closing the iterator cancels that request."""
    server.faults = {"a dog": [do.hang]}
    engine = open_engine(concurrency=2)
    answers = engine.answers(prompts("a dog", "a cat", "a bird"))
    assert sorted([next(answers), next(answers)]) == [*enumerate(answered("a cat", "a bird"), 1)]
    answers.close()
    assert engine.ask(prompts("a fish", "a cow")) == answered("a fish", "a cow")


def test_threads_share_the_limit_on_connections(server, open_engine):
    def wait_for_others(handler):
        ends = time.monotonic() + 20
        while server.most < 5 and time.monotonic() < ends:
            time.sleep(0.01)
        handler.answer()

    server.latency, server.always = 0.01, wait_for_others
    engine, parts = open_engine(concurrency=5), [texts(10, f"thread {i}") for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda part: engine.ask(prompts(*part)), parts))
    assert found == [answered(*part) for part in parts]
    assert server.most == 5 == len({seen.connection for seen in server.asked})  # kept alive


# ---- faults of single requests

RETRIED = [
    (do.status(429), "busy"), (do.status(429, Retry_After="0"), "busy"), (do.status(408), "timeout"),
    (do.status(500, {"error": {"message": "CUDA error"}}), "busy"), (do.status(529), "busy"),
    (do.status(503, b"<html>Service Unavailable</html>"), "busy"), (do.reset, "unreachable"),
    (do.reset_after_headers, "unreachable"), (do.cut, "unreachable"), (do.no_http, "unreachable"),
]  # fmt: skip
FINAL = [
    (do.status(400, {"error": {"message": "bad image"}}), "refused: 400 Bad Request: bad image"),
    (do.status(401), "refused: 401 Unauthorized"),
    (do.status(403, b"Forbidden by\n policy"), "refused: 403 Forbidden: Forbidden by policy"),
    (do.status(404, {"detail": "Not Found"}), "refused: 404 Not Found: Not Found"),
    (do.status(400, {"message": "This model's maximum context length is 8."}), "too_long: 400"),
    (do.body(b'{"choices": [{"text": "a do'), "malformed: not JSON"),
    (do.body(b"<html>hello</html>"), "malformed: HTML, not JSON"),
    (do.body({"choices": []}), "malformed: it contains no choice with a text"), (do.body(completion(None)), "empty: "),
    (do.body(completion(None, refusal="I can't.")), "refused: the model refused: I can't."),
    (do.status(204), "malformed: not JSON"),
    (do.status(200, b"not gzip", Content_Encoding="gzip"), "malformed: not JSON"),
]  # fmt: skip


def test_every_request_ends_as_its_faults_say(server, open_engine):
    """Oracle: the first final fault, or the fault of the third and last attempt, or else the text."""
    draw = random.Random(4)
    met = [[fault] * n for fault in RETRIED for n in (2, 3)] + [[fault] for fault in FINAL]
    met += [draw.choices(RETRIED, k=draw.choice([0, 0, 1, 2, 3])) for _ in range(60)]
    met += [[*draw.choices(RETRIED, k=draw.choice([1, 2])), draw.choice(FINAL)] for _ in range(20)]
    requests = prompts(*texts(len(met)))
    server.faults = {r.prompt: [fault for fault, _ in faults] for r, faults in zip(requests, met, strict=True)}
    answers = open_engine(concurrency=16).ask(requests)
    for request, faults, answer in zip(requests, met, answers, strict=True):
        final = next((error for fault, error in faults[:3] if (fault, error) in FINAL), None)
        calls = [seen.status for seen in server.asked if seen.text == request.prompt]
        if final is None and len(faults) < 3:
            assert [answer] == answered(request.prompt) and calls[-1] == 200 and len(calls) == len(faults) + 1
        else:
            assert answer.text is None and answer.error.startswith(final or f"{faults[2][1]}: ")
            assert answer.error.split(":")[0] in ERRORS and "\n" not in answer.error
            assert answer.error.endswith("(the last of 3 attempts)") == (final is None)
            assert len(calls) == len(faults[:3])


def test_retry_after_is_honored_up_to_a_limit(server, open_engine):
    server.faults = {"a dog": [do.status(429, Retry_After="0.15")], "a cat": [do.status(503, Retry_After="3600")]}
    assert open_engine().ask(prompts("a dog", "a cat")) == answered("a dog", "a cat")
    times = [[seen.at for seen in server.asked if seen.text == text] for text in ("a dog", "a cat")]
    dog, cat = (second - first for first, second in times)
    assert dog >= 0.15 and 0.3 <= cat < 600


def test_replies_that_hang_or_trickle_time_out(server, open_engine):
    server.faults = {
        "a dog": [do.hang], "a cat": [do.hang] * 2, "headers": [do.trickle("headers")] * 2,
        "body": [do.trickle("body")] * 2,
    }  # fmt: skip
    engine = open_engine(timeout=0.3, attempts=2)
    dog, *late, bird = engine.ask(prompts("a dog", "a cat", "headers", "body", "a bird"))
    assert [dog, bird] == answered("a dog", "a bird")
    assert {answer.error for answer in late} == {"timeout: no complete answer in 0.3 s (the last of 2 attempts)"}


@pytest.mark.parametrize("chunked", [False, True])
def test_replies_are_read_up_to_a_limit(server, open_engine, chunked):
    long = "word " * 190_000
    server.faults = {
        "a dog": [do.flood(100_000_000, chunked)], "a cat": [do.flood(100_000_000, chunked, 400)],
        "a fish": [do.body(completion(long))],
    }  # fmt: skip
    dog, cat, fish = open_engine().ask(prompts("a dog", "a cat", "a fish"))
    assert dog.error == "malformed: the answer is longer than 1,000,000 bytes" and dog.text is None
    assert cat.error == "refused: 400 Bad Request" and fish.text == long
    assert server.flooded < 2 * 15_000_000  # includes what fits into the sockets' buffers


def test_redirects_are_not_followed(server, open_engine, caplog):
    """Below INFO, httpcore logs the headers that an endpoint sends, and so a key in the address."""
    caplog.set_level(logging.INFO)
    with FaultServer() as other:
        addresses = [f"{other.base_url}/completions", "/v1/chat/completions", f"{other.base_url}/?key={KEY}"]
        pairs = zip((301, 302, 303, 307, 308), itertools.cycle(addresses), strict=False)
        server.faults = {f"{code} {address}": [do.status(code, Location=address)] for code, address in pairs}
        answers = dict(zip(server.faults, open_engine(key="TEST_KEY").ask(prompts(*server.faults)), strict=True))
        assert other.seen == [] and len(server.asked) == len(answers)
    for text, answer in answers.items():
        code, _, address = text.replace(KEY, "[key]").partition(" ")
        assert answer.error.startswith(f"refused: {code} ") and f"redirects to {address}" in answer.error
    assert KEY not in caplog.text


def test_details_are_one_printable_line(server, open_engine):
    server.faults = {"a dog": [do.status(400, {"message": "a\r\n\x1b[31mb\u2028\u202ec " + "x" * 10_000})]}
    error = ask_one(open_engine()).error
    assert error.startswith("refused: 400 Bad Request: a [31mb c xxx") and error.isprintable() and len(error) == 300


# ---- endpoints that fail

UNUSABLE = {
    "401": (do.status(401, {"error": {"message": "key expired"}}), "refused", "401 Unauthorized: key expired"),
    "403": (do.status(403, b"<html>blocked</html>"), "refused", "403 Forbidden"),
    "404": (do.status(404, {"error": "no such model"}), "refused", "404 Not Found: no such model"),
    "login": (do.status(302, b"", Location="https://login"), "refused", "302 Found: redirects to https://login"),
    "HTML": (do.body(b"\n<!DOCTYPE html><html>maintenance</html>"), "malformed", "HTML, not JSON"),
    "error": (do.body({"error": {"message": "quota"}}), "malformed", "it contains no choice with a text"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_endpoint_that_answers_nothing_is_given_up(server, open_engine, name):
    """But not one that only blocks some requests, many of them in a row."""
    fault, code, detail = UNUSABLE[name]
    form = chats if name in ("401", "HTML") else prompts
    engine, blocked = open_engine(concurrency=4), texts(3 * MAX_REFUSALS, "blocked")
    server.always = lambda handler: fault(handler) if handler.seen.text.startswith("blocked") else handler.answer()
    answers = engine.ask(form(*blocked, *texts(10)))
    assert answers[len(blocked) :] == answered(*texts(10))
    assert all(a.error.startswith(f"{code}: ") and "stopped" not in a.error for a in answers[: len(blocked)])
    asked = [seen.text for seen in server.asked]
    assert [asked.count(text) for text in blocked] == [1] * len(blocked) and asked.count("Hello") <= 3

    server.always, before = fault, len(server.asked)
    answers = engine.ask(form(*texts(500, "more")))
    assert {answer.error.split(": ")[0] for answer in answers} == {code}
    reason = f"{code}: stopped, because the endpoint does not answer: {detail}"
    assert sum(answer.error.startswith(reason) for answer in answers) > 400
    assert MAX_REFUSALS < len(server.asked) - before < 100
    assert ask_one(engine, "a later one").error.startswith(f"{code}: ")  # it is tried
    server.always = None
    assert engine.ask(form(*texts(30, "again"))) == answered(*texts(30, "again"))


def test_errors_about_requests_do_not_stop_the_others(server, open_engine):
    server.always = do.status(400, {"error": {"message": "no"}})
    answers = open_engine(concurrency=4).ask(prompts(*texts(30)))
    assert {answer.error for answer in answers} == {"refused: 400 Bad Request: no"}
    assert sorted(seen.text for seen in server.asked) == sorted(texts(30))


def test_a_dead_endpoint_is_given_up_until_it_is_back(server, open_engine, monkeypatch):
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.1)
    server.dies_at = 41
    engine, wanted, start = open_engine(concurrency=8, attempts=4), texts(2_000), time.monotonic()
    answers = engine.ask(prompts(*wanted))
    served = [text for text, answer in zip(wanted, answers, strict=True) if answer.error is None]
    assert sorted(served) == texts_with_status_200(server) and 20 < len(served) <= 40
    errors = [answer.error for answer in answers if answer.error]
    assert all(error.startswith("unreachable: ") for error in errors)
    assert sum("attempts)" in error for error in errors) <= 3 * MAX_NO_REPLIES
    stopped = f"unreachable: stopped after {MAX_NO_REPLIES} requests in a row without a reply"
    assert errors.count(stopped) > 1_900
    with ThreadPoolExecutor(4) as pool:  # later batches try again, and share what they find
        parts = list(pool.map(engine.ask, [prompts(*texts(500))] * 4))
    assert all(answer.error.startswith("unreachable: ") for part in parts for answer in part)
    assert time.monotonic() - start < 60  # pauses for each request would take 4,000 * 0.35 s / 8 = 175 s
    server.revive()
    assert engine.ask(prompts(*texts(10, "again"))) == answered(*texts(10, "again"))


def test_waiting_requests_stop_with_the_others(server, open_engine, monkeypatch):
    monkeypatch.setattr(openai, "MAX_PAUSE", 30.0)
    server.faults, server.always = {"a dog": [do.status(429, Retry_After="30")]}, do.reset
    start = time.monotonic()
    dog, *others = open_engine(concurrency=4).ask(prompts("a dog", *texts(20)))
    assert time.monotonic() - start < 20  # else 30 s
    assert dog.error.startswith("unreachable: stopped") and [seen.text for seen in server.asked].count("a dog") == 1
    assert all(answer.error.startswith("unreachable: ") for answer in others)


def test_an_endpoint_that_only_hangs_is_given_up(server, open_engine):
    server.always = do.hang
    answers = open_engine(concurrency=MAX_NO_REPLIES, attempts=2, timeout=0.1).ask(prompts(*texts(400)))
    assert len(server.asked) <= 4 * MAX_NO_REPLIES  # else 800
    assert {answer.error.split(":")[0] for answer in answers} == {"timeout", "unreachable"}


def test_an_endpoint_that_only_fails_is_given_up_after_warnings(server, open_engine, caplog, monkeypatch):
    """Each reply comes 10 s after the one before."""
    monkeypatch.setattr(endpoint, "time", SimpleNamespace(monotonic=itertools.count(step=10).__next__, time=time.time))
    monkeypatch.setattr(openai, "MAX_PAUSE", 0.01)
    server.always = do.status(429, b'{"message": "try again"}')
    engine = open_engine(attempts=20, concurrency=4)
    errors = [answer.error for answer in engine.ask(prompts(*texts(500)))]
    stopped = "busy: stopped after 600 s without an answer to any request: 429 Too Many Requests: try again"
    assert errors.count(stopped) > 400
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    starts = [f"{server.base_url}: has not answered any request for {s} s: 429 " for s in range(30, 600, 60)]
    assert all(map(str.startswith, warnings, starts)) and len(warnings) == len(starts)
    server.always = None
    assert engine.ask(prompts("a dog")) == answered("a dog")


# ---- the key and the options


def test_the_key_is_sent_but_never_shown(server, open_engine, caplog):
    caplog.set_level(logging.DEBUG)

    def echo_key(status, wrap=lambda text: text):
        def fault(handler):
            handler.reply(status, wrap(f"no such key: {handler.headers['Authorization']}"), {"X-Key": "-"})

        return fault

    server.faults = {
        "a": [echo_key(400, lambda text: {"error": {"message": text, "code": KEY}})], "b": [echo_key(403, str.encode)],
        "c": [echo_key(500)] * 3, "d": [echo_key(200, lambda text: completion(None, refusal=text))],
        "e": [echo_key(200, lambda text: completion(None, finish=KEY))],
        "f": [echo_key(400, lambda text: {"message": "x" * 285 + text})],
        "g": [echo_key(200, lambda text: {"error": text})], "h": [do.reset] * 3,
    }  # fmt: skip
    engine = open_engine(key="TEST_KEY")
    answers = engine.ask(prompts(*"abcdefghi"))
    assert {seen.headers["Authorization"] for seen in server.asked} == {f"Bearer {KEY}"}
    assert [answer.error is None for answer in answers] == [False] * 8 + [True]
    assert answers[0].error == "refused: 400 Bad Request: no such key: Bearer [key] ([key])"
    shown = [repr(answers), repr(engine), repr(engine.options), repr(vars(engine)), engine.model, caplog.text]
    for fault in (echo_key(401), echo_key(400), echo_key(503), do.status(200, {"data": [{"id": KEY}]})):
        server.always = fault
        with pytest.raises((RecipeError, RunError)) as caught:
            engine.check()
        shown += [str(caught.value), repr(caught.value)]
    assert "httpcore2" in caplog.text
    assert not any(KEY in text or "sk-5ecret" in text for text in shown)


def test_a_missing_key_or_package_is_named(server, open_engine, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("TEST_KEY")
        for call in (OpenAIEngine.check, ask_one):
            with pytest.raises(RecipeError, match="environment variable TEST_KEY is not set"):
                call(open_engine(key="TEST_KEY"))
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(RecipeError, match=r"openai .*pip install '\.\[captions\]'"):
        open_engine().check()
    assert server.seen == []


def test_the_model_is_named_with_its_extra_fields():
    def name(**options):
        return OpenAIEngine(OpenAI(**{"base_url": "http://localhost:1/v1", "model": "org/tiny", **options})).model

    same = {"base_url": "https://example.invalid", "key": "KEY", "concurrency": 1, "timeout": 1.0, "attempts": 1}
    assert name() == "org/tiny" == name(**same)
    assert name(extra={"top_k": 20, "a": "ä"}) == 'org/tiny {"a":"ä","top_k":20}'


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
    engine = {"openai": {"base_url": "http://localhost:8000/v1", "model": "tiny", **options}}
    captions = {"engines": {"llm": engine}, "rewrite": {"engine": "llm"}}
    source = {"name": "a", "format": "webdataset", "path": "a.tar"}
    with pytest.raises(RecipeError, match=rf"captions\.engines\.llm\.openai\.{message}") as caught:
        parse_recipe({"input": source, "captions": captions})
    assert "5ecret" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 10_000), st.floats(0, 1e9))
def test_pauses_double_with_full_jitter_or_last_as_the_endpoint_asks(attempt, seconds):
    pauses = [choose_pause(None, attempt) for _ in range(20)]
    longest = min(openai.MAX_PAUSE, openai.FIRST_PAUSE * 2 ** min(attempt - 1, 99))
    assert all(0 <= pause <= longest for pause in pauses) and max(pauses) > longest / 4
    pause = choose_pause(seconds, attempt)
    assert min(seconds, openai.MAX_PAUSE) <= pause <= min(openai.MAX_PAUSE, seconds) + openai.FIRST_PAUSE


# ---- check


def test_check_passes_if_the_model_is_listed(server, open_engine):
    server.models = [*texts(100_000), "tiny-llm"]
    open_engine(base_url=f"{server.base_url}/", key="TEST_KEY").check()
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.headers["Authorization"]) == ("GET", "/v1/models", f"Bearer {KEY}")


@pytest.mark.parametrize(
    ("models", "wanted", "message"),
    [
        (["tiny-llm", "tiny-vlm"], "tiny-lm", "'tiny-vlm', 'tiny-llm'$"), ([], "tiny-llm", "none$"),
        ([f"org/model-{i}" for i in range(50)], "zzz", r"'org/model-0', .* \(of 50\)$"),
    ],
)  # fmt: skip
def test_check_names_near_models(server, open_engine, models, wanted, message):
    server.models = models
    with pytest.raises(RecipeError, match=f"^{re.escape(server.base_url)}: has no model '{wanted}'; it has {message}"):
        open_engine(model=wanted).check()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (do.status(401, {"error": "no"}), RecipeError, "/models: the endpoint needs a key: set `key`.*; 401 .*: no"),
        (do.status(500), RunError, "has an error or is too busy; 500"), (do.no_http, RunError, "cannot be reached"),
        (do.status(429, {"error": "quota"}), RunError, "has an error or is too busy; 429 Too Many Requests: quota"),
        (do.reset, RunError, r"cannot be reached \(ReadError.*\)"), (do.hang, RunError, "no complete answer in 0.3 s"),
        (do.status(307, Location="https://example.invalid/v1"), RecipeError, "redirects to https://example.invalid"),
        (do.status(400, {"error": "no"}), RecipeError, "models: 400 Bad Request: no. Accepted: the address of"),
        (do.body(b"<html>hello</html>"), RecipeError, "not a list of models. Accepted: .* ends in /v1"),
        (do.body({"models": []}), RecipeError, "not a list of models"),
        (do.flood(20_000_000), RecipeError, "not a list of models"),
    ],
)  # fmt: skip
def test_check_reports_what_it_found(server, open_engine, fault, kind, message):
    server.always = fault
    with pytest.raises(kind, match=f"^{server.base_url}.*{message}"):
        open_engine(timeout=0.3 if fault is do.hang else 60).check()


def test_check_reports_a_refused_key_and_a_missing_server(server, open_engine):
    server.always = do.status(403, {"error": {"message": "Incorrect API key"}})
    refused = "/models: the key in the environment variable TEST_KEY is not accepted.*; 403 .*: Incorrect API key"
    with pytest.raises(RecipeError, match=f"{server.base_url}{refused}"):
        open_engine(key="TEST_KEY").check()
    server.die()
    for address in (server.base_url, "http://nobody.invalid/v1"):
        with pytest.raises(RunError, match=f"^{address}: cannot be reached .*; accepted: a running endpoint"):
            open_engine(base_url=address).check()


@pytest.mark.parametrize("status", [404, 405])
def test_check_asks_for_a_token_if_no_models_are_listed(server, open_engine, status):
    def refuse(*paths, code=status, body=b""):
        def fault(handler):
            path = handler.path.removeprefix("/v1/")
            if path == "models":
                handler.reply(status, b"")
            elif path in paths:
                handler.reply(code, body)
            else:
                handler.answer()

        server.always = fault

    for refused, used in (((), "chat/completions"), (("chat/completions",), "completions")):
        refuse(*refused)
        open_engine().check()
        assert server.seen[-1].path == f"/v1/{used}" and server.seen[-1].body["max_tokens"] == 1
    for options, message in [
        ({}, rf"{server.base_url}/completions: {status} .*usually ends in /v1"),
        ({"code": 401}, "chat/completions: the endpoint needs a key"),
        ({"code": 200, "body": b"welcome"}, "chat/completions: the answer is malformed: not JSON"),
    ]:
        refuse("chat/completions", "completions", **options)
        with pytest.raises(RecipeError, match=message):
            open_engine().check()


# ---- the environment


def test_the_proxy_of_the_environment_is_used(server, open_engine, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    assert [ask_one(open_engine(base_url="http://endpoint.invalid/v1"))] == answered("a dog")
    (seen,) = server.asked
    assert seen.path == "http://endpoint.invalid/v1/completions"
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1")
    with pytest.raises(RecipeError, match="the proxy that the environment names cannot be used"):
        open_engine().check()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_an_untrusted_certificate_is_refused(open_engine, tmp_path, monkeypatch):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    command += " -keyout key.pem -out cert.pem -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with FaultServer(tls=context) as secure:
        answer = ask_one(open_engine(base_url=secure.base_url, key="TEST_KEY"))
        assert answer.error.startswith("unreachable: ") and "CERTIFICATE_VERIFY_FAILED" in answer.error
        assert secure.seen == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert [ask_one(open_engine(base_url=secure.base_url))] == answered("a dog")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels_all_requests(server, open_engine):
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
