"""Request bodies, compared with the protocol's reference, and arbitrary bytes as replies."""

import base64
import io
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.llm import openai_protocol
from curate.llm.engine import ERRORS, Answer, Message, Request
from curate.llm.openai_protocol import UnsentError, error_code, read_answer, read_error, read_models, write_chat
from tests.kit.llm_server import TOKENS_IN, TOKENS_OUT, completion

UID = "0" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def mapping(**values):
    """Any JSON, or an object with any of these keys."""
    return JSON | st.fixed_dictionaries({}, optional=values)


CHOICE = mapping(message=mapping(content=JSON, refusal=JSON), text=JSON, finish_reason=JSON)
USAGE = mapping(prompt_tokens=JSON, completion_tokens=JSON)
REPLIES = mapping(choices=JSON | st.lists(CHOICE, max_size=2), usage=USAGE, error=JSON, data=JSON)


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
        *[((Message("user", "?"),), image, "no_image: .*not JPEG, PNG, WebP, or GIF") for image in IMAGES],
        ((), None, "refused: .*neither a prompt nor messages"),
        ((Message("system", "a"),), encoded("PNG"), "refused: .*no user message"),
    ],
)
def test_requests_that_cannot_be_sent(messages, image, error):
    with pytest.raises(UnsentError, match=f"^{error}"):
        write_chat(Request(UID, "recaption", "", 0, messages=messages, image=image))


def reply(content, **kwargs):
    return json.dumps(completion(content, **kwargs)).encode()


def whole(text, finish="stop"):
    return Answer(text, None, TOKENS_IN, TOKENS_OUT, finish)


TEXT, THINKING = {"type": "text", "text": "dog"}, {"type": "thinking", "thinking": [1]}
READ = [
    (reply("  a dog\n"), whole("  a dog\n")), (reply("dog", finish="length", chat=False), whole("dog", "length")),
    (reply([{"type": "text", "text": "a "}, TEXT]), whole("a dog")), (reply([THINKING, TEXT]), whole("dog")),
    (reply("猫\ud83d\ude00."), whole("猫😀.")), (reply("a dog", refusal="no"), whole("a dog")),
    (reply("a", reasoning_content="hm"), whole("a")), (b'{"choices": [{"text": "a"}]}'.ljust(openai_protocol.MAX_REPLY), Answer("a")),
    *((b'{"choices": [{"text": "a"}], "usage": %s}' % usage, Answer("a")) for usage in (
        b"null", b'{"prompt_tokens": -1, "completion_tokens": 1e3}', b'{"prompt_tokens": 2147483648}')),
    (b'{"choices": [{"text": "a"}], "usage": {"prompt_tokens": 2147483647}}', Answer("a", None, 2147483647)),
    (b'{"choices": [{"text": "a", "finish_reason": 3}]}', Answer("a")),
    (b'{"choices": [{"text": "a", "finish_reason": "so \\u001b[31m"}]}', Answer("a")),
]  # fmt: skip


@pytest.mark.parametrize(("body", "answer"), READ)
def test_texts(body, answer):
    assert read_answer(body) == answer


NO_TEXTS = {
    "malformed: not JSON": [
        b"", reply("a dog")[:-9], b"\xff\xfe\xfd", b"[" * 200_000, b"1" * 10_000, reply("\udc00"),
    ],
    "malformed: it contains no choice with a text": [
        b"null", b"[]", b"{}", b'{"choices": null}', b'{"choices": []}', b'{"choices": [null]}',
        b'{"choices": [{"text": 3}]}', reply(["a"]), reply({"text": "a"}),
    ],
    "malformed: HTML, not JSON": [b"<html>busy</html>"],
    "malformed: the answer is longer than 1,000,000 bytes$": [reply("a dog").ljust(openai_protocol.MAX_REPLY + 1)],
    "malformed: .*; it says: out of memory": [b'{"choices": [], "error": {"message": "out of memory", "code": "oom"}}'],
    "empty: the answer contains no text$": [b'{"choices": [{"text": null}]}', b'{"choices": [{}]}'],
    r"empty: .*\(finish_reason stop\)": [
        reply(None), reply(""), reply([]), reply([{"type": "text"}]), reply(None, refusal=""),
    ],
    r"empty: .*\(finish_reason length\)": [reply(" \n\t", finish="length"), reply([THINKING], finish="length")],
    "refused: the model refused: No.$": [reply(None, refusal="No."), reply([{"type": "refusal", "refusal": "No."}])],
}  # fmt: skip


@pytest.mark.parametrize("error", NO_TEXTS)
def test_no_texts(error):
    for body in NO_TEXTS[error]:
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
    ("body", "text"),
    [
        (b'{"error": {"message": "no", "type": "invalid_request", "code": "bad"}}', "no (invalid_request, bad)"),
        (b'{"message": "no", "type": "BadRequestError", "param": null, "code": 400}', "no (BadRequestError)"),
        (b'{"error": "model not found"}', "model not found"), (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": {}}', ""), (b"Unauthorized", "Unauthorized"), (b" <html>502</html>", ""), (b"", ""),
    ],
)  # fmt: skip
def test_texts_of_errors(body, text):
    assert read_error(body) == text


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 2048 tokens. However, you requested 2100 tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 80. This model's maximum context length is 64 tokens",
        "The decoder prompt (length 140) is longer than the maximum model length of 128.",
        "max_tokens must be at least 1, got -186. (BadRequestError)",
        "Bad (invalid_request_error, context_length_exceeded)",
        "the request exceeds the available context size, try increasing it (exceed_context_size_error)",
    ],
)
def test_prompts_that_are_too_long(text):
    assert [error_code(status, text) for status in (400, 401, 500)] == ["too_long", "refused", "busy"]


def test_codes_of_statuses():
    codes = {"refused": (301, 400, 401, 404, 413), "timeout": (408,), "busy": (429, 500, 503, 599)}
    for code, statuses in codes.items():
        assert {error_code(status, "no such context") for status in statuses} == {code}


def test_models():
    assert read_models(b'{"object": "list", "data": [{"id": "a"}, {"id": "b", "x": 1}]}') == ["a", "b"]
    assert read_models(b'{"data": []}') == []
    for body in (b'{"data": [{}]}', b'{"data": [3]}', b'{"data": {"id": "a"}}', b"[]", b"<html>"):
        assert read_models(body) is None
