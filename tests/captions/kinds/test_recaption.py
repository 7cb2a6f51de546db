"""Recaptions: the image goes along, styles and ordinals, the alt-text as data."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.captions.kinds import prompts
from curate.captions.kinds.recaption import STYLES, Recaption
from curate.llm.engine import Sampling
from tests.captions.hostile import HOSTILE
from tests.captions.rows import make_rows, requests

PICTURE = "5a" * 32


def table(captions, per_row=1, picture=PICTURE):
    return make_rows(per_row, caption=captions, sha256=[picture] * len(captions))


def recaption(*styles, **options):
    return Recaption(engine="vlm", **{"styles": styles} if styles else {}, **options)


def test_what_is_asked():
    found = requests(table(["a cat"], 2), recaption("short", "long"))
    assert [(r.style, r.ordinal) for r in found] == [("short", 0), ("short", 1), ("long", 0), ("long", 1)]
    for request in found:
        [message] = request.messages
        assert (request.kind, request.picture, request.prompt, message.role) == ("recaption", PICTURE, None, "user")
        assert STYLES[request.style].words in message.text and "a cat" not in message.text
        assert request.group == f"recaption/{request.style}"
    assert [r.sampling.max_tokens for r in found] == [77, 77, 256, 256]


def test_the_first_is_greedy_and_stays_when_more_are_asked_for():
    one, three = (requests(table(["a cat"], n), recaption(), 4) for n in (1, 3))
    assert one == three[:1] and one[0].sampling == Sampling(0.0, 1.0, 77)
    assert [replace(r.sampling, seed=0) for r in three[1:]] == [Sampling(0.9, 0.9, 77)] * 2
    assert three[1].sampling.seed != three[2].sampling.seed
    other = requests(table(["a cat"], 3), recaption(), 5)
    assert other[0] == three[0] and other[1] != three[1]
    warm = requests(table(["a cat"], 2), recaption(temperature=0.7, max_tokens=9))
    assert [replace(r.sampling, seed=0) for r in warm] == [Sampling(0.7, 0.9, 9)] * 2


def test_with_the_alt_text():
    [found] = requests(table(["Mona Lisa"]), recaption(alt_text=True))
    [message] = found.messages
    assert message.text.count("\n<caption>Mona Lisa</caption>\n") == 1 and "may as well be wrong" in message.text
    for nothing in (None, "", " \u200b"):
        assert requests(table([nothing]), recaption(alt_text=True)) == requests(table([nothing]), recaption())


def test_a_template_of_ones_own_is_read_once_for_all_rows(tmp_path, monkeypatch):
    path, read = tmp_path / "mine.txt", []
    path.write_text("[user]\nDescribe it {length}. <caption>{caption}</caption>")
    monkeypatch.setattr(prompts, "read_whole", lambda name, limit: read.append(name) or path.read_bytes())
    found = requests(table(["a cat", "a dog", None]), recaption("short", "long", alt_text=True, template=str(path)))
    assert [request.messages[0].text.startswith("Describe it in ") for request in found] == [True] * 4 + [False] * 2
    assert read == [str(path)]


def test_without_alt_text_the_caption_changes_nothing():
    assert requests(table(["a cat"]), recaption()) == requests(table([None]), recaption())


def test_rows_for_which_nothing_is_asked():
    assert requests(table(["a cat"], picture=None), recaption()) == []
    assert requests(table(["a cat"], 0), recaption()) == []
    rows = make_rows([None], caption=["a"], sha256=[PICTURE])
    assert requests(rows, recaption()) == []


@given(st.permutations(range(9)), st.integers(0, 9))
@settings(max_examples=20)
def test_a_request_depends_on_its_row_alone(order, cut):
    rows = table([f"cat {i}" for i in range(9)], 2)
    options = recaption("short", "long", alt_text=True)
    shuffled = rows.take(pa.array(order, pa.int64()))
    parts = requests(shuffled[:cut], options) + requests(shuffled[cut:], options)
    by_place = {(r.uid, r.style, r.ordinal): r for r in parts}
    whole = requests(rows, options)
    assert [by_place[r.uid, r.style, r.ordinal] for r in whole] == whole and len(parts) == len(whole) == 36


def test_an_own_template_serves_all_styles(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("[user]\nLook {length}.")
    found = requests(table(["a"]), recaption("short", "long", template=str(path)))
    assert [r.messages[0].text for r in found] == [f"Look {STYLES[style].words}." for style in ("short", "long")]


def test_a_captioner_without_words_gets_the_image_alone():
    [found] = requests(table(["a"]), recaption("plain"))
    assert (found.prompt, found.messages, found.style) == ("", (), "plain") and found.picture


def test_an_unknown_style():
    with pytest.raises(ValueError, match="'short', 'long' or 'plain'"):
        recaption("shrt")


@pytest.mark.parametrize("caption", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_alt_text_stays_data(caption):
    [found], [plain] = (requests(table([c]), recaption(alt_text=True)) for c in (caption, "a cat"))
    [found], [plain] = found.messages, plain.messages
    before, after = plain.text.split("a cat")
    assert found.text.startswith(before) and found.text.endswith(after) and before.endswith("<caption>")
    assert found.text.count("\n") == plain.text.count("\n")
    assert found.text.count("<") == found.text.count(">") == plain.text.count("<") == 2


@pytest.mark.parametrize(
    ("answer", "short", "long"),
    [
        ('"A cat."\nIt sleeps.', "A cat.", '"A cat." It sleeps.'),
        ("\nA cat.\n\nIt sleeps.\n", "A cat.", "A cat. It sleeps."),
        ('"A cat.\nIt sleeps."', '"A cat.', "A cat. It sleeps."),
        (" ", "", ""),
    ],
)
def test_text_of(answer, short, long):
    assert recaption().text_of(answer, "short") == short
    assert recaption().text_of(answer, "long") == long
