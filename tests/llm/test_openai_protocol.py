"""Bodies that are sent, against the protocol's reference; and whatever bytes may come back."""

import base64
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.llm.engine import ERRORS, Answer, Message, Request
from curate.llm.openai_protocol import (
    MAX_REPLY,
    UnsentError,
    error_code,
    read_answer,
    read_error,
    read_models,
    write_chat,
)
from tests.kit.llm_server import TOKENS_IN, TOKENS_OUT, completion

UID = "0" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
# Values of any kind where the protocol has its own.
REPLIES = st.fixed_dictionaries(
    {},
    optional={
        "choices": JSON
        | st.lists(
            JSON
            | st.fixed_dictionaries(
                {},
                optional={
                    "message": JSON | st.fixed_dictionaries({}, optional={"content": JSON, "refusal": JSON}),
                    "text": JSON,
                    "finish_reason": JSON,
                },
            ),
            max_size=2,
        ),
        "usage": JSON | st.fixed_dictionaries({}, optional={"prompt_tokens": JSON, "completion_tokens": JSON}),
        "error": JSON,
        "data": JSON,
    },
)


def encoded(kind):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return file.getvalue()


def test_messages_are_a_chat():
    messages = (Message("system", "Be brief."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert write_chat(Request(UID, "fused", "", 0, messages=messages)) == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "media"), [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp"), ("GIF", "image/gif")]
)
def test_an_image_goes_before_the_last_text_of_the_user(kind, media):
    image = encoded(kind)
    messages = (Message("user", "a"), Message("assistant", "b"), Message("user", "What is it?"), Message("system", "s"))
    chat = write_chat(Request(UID, "recaption", "short", 0, messages=messages, image=image))
    assert [message["content"] for place, message in enumerate(chat) if place != 2] == ["a", "b", "s"]
    picture, text = chat[2]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    head, data = picture["image_url"]["url"].split(",", 1)
    assert picture["type"] == "image_url" and head == f"data:{media};base64"
    assert base64.b64decode(data, validate=True) == image


IMAGES = [b"", b"BM\x00\x00", b"\xff\xd8", b"RIFF\x00\x00\x00\x00WAVE", b"<svg/>", b"GIF90a"]


@pytest.mark.parametrize(
    ("messages", "image", "error"),
    [
        *[((Message("user", "?"),), image, "no_image: .*neither JPEG, PNG, WebP nor GIF") for image in IMAGES],
        ((), None, "refused: .*neither a prompt nor messages"),
        ((Message("system", "a"),), encoded("PNG"), "refused: .*no user message"),
    ],
)
def test_requests_that_cannot_be_sent(messages, image, error):
    with pytest.raises(UnsentError, match=f"^{error}"):
        write_chat(Request(UID, "recaption", "", 0, messages=messages, image=image))


def reply(content, **kwargs):
    return json.dumps(completion(content, **kwargs)).encode()


WHOLE = {"tokens_in": TOKENS_IN, "tokens_out": TOKENS_OUT}


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (reply("  a dog\n"), Answer("  a dog\n", finish="stop", **WHOLE)),
        (reply("a dog", finish="length", chat=False), Answer("a dog", finish="length", **WHOLE)),
        (
            reply([{"type": "text", "text": "a "}, {"type": "text", "text": "dog"}]),
            Answer("a dog", finish="stop", **WHOLE),
        ),
        (
            reply([{"type": "thinking", "thinking": [1]}, {"type": "text", "text": "dog"}]),
            Answer("dog", finish="stop", **WHOLE),
        ),
        (reply("猫\ud83d\ude00."), Answer("猫😀.", finish="stop", **WHOLE)),
        (
            reply([{"type": "text"}]),
            Answer(None, "empty: the answer contains no text (finish_reason stop)", finish="stop", **WHOLE),
        ),
        (reply("a dog", refusal="no"), Answer("a dog", finish="stop", **WHOLE)),
        (reply("a", reasoning_content="hm"), Answer("a", finish="stop", **WHOLE)),
        (b'{"choices": [{"text": "a"}]}', Answer("a")),
        (b'{"choices": [{"text": "a"}]}'.ljust(MAX_REPLY), Answer("a")),
        (b'{"choices": [{"text": "a"}], "usage": null}', Answer("a")),
        (b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": -1, "completion_tokens": 1e3}}', Answer("a")),
        (b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": 2147483648}}', Answer("a")),
        (b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": 2147483647}}', Answer("a", None, 2147483647)),
        (b'{"choices": [{"text": "a", "finish_reason": 3}]}', Answer("a")),
        (b'{"choices": [{"text": "a", "finish_reason": "so \\u001b[31m"}]}', Answer("a")),
    ],
)
def test_texts(body, answer):
    assert read_answer(body) == answer


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "malformed: not JSON"), (b"<html>busy</html>", "malformed: HTML, not JSON"),
        (reply("a dog")[:-9], "malformed: not JSON"), (b"\xff\xfe\xfd", "malformed: not JSON"),
        (b"[" * 200_000, "malformed: not JSON"), (b"1" * 10_000, "malformed: not JSON"),
        (b"null", "malformed: it contains no choice with a text"),
        (reply("a dog").ljust(MAX_REPLY + 1), "malformed: the answer is longer than 1,000,000 bytes$"),
        (b"[]", "malformed: it contains no choice with a text"), (b"{}", "malformed: it contains no choice with a text"),
        (b'{"choices": null}', "malformed: it contains no choice with a text"),
        (b'{"choices": []}', "malformed: it contains no choice with a text"),
        (
            b'{"choices": [], "error": {"message": "out of memory", "code": "oom"}}',
            "malformed: .*; it says: out of memory",
        ),
        (b'{"choices": [null]}', "malformed: it contains no choice with a text"), (b'{"choices": [{}]}', "empty: "),
        (reply("\udc00"), "malformed: not JSON"),
        (b'{"choices": [{"text": 3}]}', "malformed: it contains no choice with a text"),
        (reply(["a"]), "malformed: it contains no choice with a text"),
        (reply({"text": "a"}), "malformed: it contains no choice with a text"),
        (reply(None), r"empty: .*\(finish_reason stop\)"), (reply(""), "empty: "),
        (reply(" \n\t", finish="length"), r"empty: .*\(finish_reason length\)"), (reply([]), "empty: "),
        (reply([{"type": "thinking", "thinking": "hm"}], finish="length"), "empty: "),
        (reply(None, refusal="I can't help with that."), "refused: the model refused: I can't help with that.$"),
        (reply([{"type": "refusal", "refusal": "No."}]), "refused: the model refused: No.$"),
        (reply(None, refusal=""), "empty: "),
        (b'{"choices": [{"text": null}]}', "empty: the answer contains no text$"),
    ],
)  # fmt: skip
def test_no_texts(body, error):
    answer = read_answer(body)
    assert answer.text is None and re.match(error, answer.error), answer.error
    if not error.startswith("malformed"):
        assert (answer.tokens_in, answer.tokens_out) == (TOKENS_IN, TOKENS_OUT) or b"usage" not in body


@pytest.mark.thorough
@given(REPLIES.map(lambda value: json.dumps(value).encode()) | JSON.map(lambda v: json.dumps(v).encode()) | st.binary())
@settings(max_examples=120)
def test_no_bytes_do_harm(body):
    answer = read_answer(body)
    assert (answer.text is None) != (answer.error is None)
    if answer.text is not None:
        assert answer.text.strip() and answer.text.encode()
    else:
        assert answer.error.split(":")[0] in ERRORS
    assert 0 <= answer.tokens_in < 1 << 31 and 0 <= answer.tokens_out < 1 << 31
    assert isinstance(read_error(body), str)
    assert all(isinstance(name, str) for name in read_models(body) or [])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b'{"error": {"message": "no", "type": "invalid_request_error", "code": "bad"}}',
            "no (invalid_request_error, bad)",
        ),
        (
            b'{"object": "error", "message": "no", "type": "BadRequestError", "param": null, "code": 400}',
            "no (BadRequestError)",
        ),
        (b'{"error": "model not found"}', "model not found"), (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": {}}', ""), (b"Unauthorized", "Unauthorized"), (b" <html>502</html>", ""), (b"", ""),
    ],
)  # fmt: skip
def test_what_errors_say(body, said):
    assert read_error(body) == said


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 2100 tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 80. This model's maximum context length is 64 tokens",
        "The decoder prompt (length 140) is longer than the maximum model length of 128.",
        "max_tokens must be at least 1, got -186. (BadRequestError)",
        "Bad (invalid_request_error, context_length_exceeded)",
        "the request exceeds the available context size, try increasing it (exceed_context_size_error)",
    ],
)
def test_prompts_that_are_too_long(said):
    assert error_code(400, said) == "too_long"
    assert error_code(401, said) == "refused"
    assert error_code(500, said) == "busy"


def test_codes_of_statuses():
    codes = {"refused": (301, 400, 401, 404, 413), "timeout": (408,), "busy": (429, 500, 503, 599)}
    for code, statuses in codes.items():
        assert {error_code(status, "no such context") for status in statuses} == {code}


def test_models():
    assert read_models(b'{"object": "list", "data": [{"id": "a"}, {"id": "b", "x": 1}]}') == ["a", "b"]
    assert read_models(b'{"data": [{}]}') is None and read_models(b'{"data": [3]}') is None
    assert read_models(b'{"data": []}') == []
    assert read_models(b'{"data": {"id": "a"}}') is None
    assert read_models(b"[]") is None and read_models(b"<html>") is None
