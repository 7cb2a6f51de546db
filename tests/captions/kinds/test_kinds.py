"""Requests for recaptions, fused texts, and translations. For all kinds, requests depend on rows alone, and captions are data."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.captions.kinds.fuse import Fuse
from curate.captions.kinds.recaption import STYLES, Recaption
from curate.captions.kinds.rewrite import Rewrite
from curate.captions.kinds.translate import LANGUAGES, Translate
from curate.llm.engine import Sampling
from tests.captions.hostile import HOSTILE
from tests.captions.rows import make_rows

PICTURE = "5a" * 32


def recaption(*styles, **options):
    return Recaption(engine="vlm", **{"styles": styles} if styles else {}, **options)


def fuse(**options):
    return Fuse(engine="llm", **options)


def translate(*languages, **options):
    return Translate(engine="llm", languages=languages, **options)


def see(captions, per_row=1, picture=PICTURE):
    """Rows with an image."""
    return make_rows(per_row, caption=captions, sha256=[picture] * len(captions))


def ask(section, per_row=1, seed=0, **columns):
    return section.requests(make_rows(per_row, **columns), seed)


# ---- all kinds

SECTIONS = {  # with the number of requests for 9 rows and two texts a style
    "completion": (Rewrite(engine="llm"), 72), "chat": (Rewrite(engine="llm", prompt="chat"), 72),
    "recaption": (recaption("short", "long", alt_text=True), 36), "fuse": (fuse(), 18),
    "translate": (translate("de", "ja"), 30),
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
@given(st.permutations(range(9)), st.integers(0, 9))
@settings(max_examples=10)
def test_a_request_depends_only_on_its_row(name, order, cut):
    section, count = SECTIONS[name]
    languages = [("en", "de", None)[i % 3] for i in range(9)]
    texts = {"caption": [f"cat {i}" for i in range(9)], "source": [f"An animal, {i}." for i in range(9)]}
    rows = make_rows(2, **texts, language=languages, sha256=[PICTURE] * 9)
    whole, mixed = section.requests(rows, 0), rows.take(pa.array(order, pa.int64()))
    parts = section.requests(mixed[:cut], 0) + section.requests(mixed[cut:], 0)
    found = {(request.uid, request.style, request.ordinal): request for request in parts}
    assert [found[request.uid, request.style, request.ordinal] for request in whole] == whole
    assert len(parts) == len(whole) == len({request.digest("m") for request in whole}) == count


@pytest.mark.parametrize(
    ("section", "sampling"),
    [(recaption(), Sampling(0, 1, 77)), (fuse(), Sampling(0, 1, 80)), (translate("de"), Sampling(0, 1, 160))],
)
def test_the_first_text_is_greedy_and_does_not_depend_on_the_number(section, sampling):
    columns = {"caption": ["a"], "source": ["b"], "sha256": [PICTURE]}
    one, three = (ask(section, n, 4, **columns) for n in (1, 3))
    assert one == three[:1] and one[0].sampling == sampling
    drawn = replace(sampling, temperature=0.9, top_p=0.9)
    assert [replace(request.sampling, seed=0) for request in three[1:]] == [drawn] * 2
    assert three[1].sampling.seed != three[2].sampling.seed
    other = ask(section, 3, 5, **columns)
    assert other[0] == three[0] and other[1] != three[1]
    warm = ask(section.model_copy(update={"temperature": 0.7, "max_tokens": 9}), 2, **columns)
    assert [replace(request.sampling, seed=0) for request in warm] == [Sampling(0.7, 0.9, 9)] * 2
    assert ask(section, 0, **columns) == ask(section, [None], **columns) == []


@pytest.mark.parametrize(
    ("section", "field"),
    [
        (recaption(alt_text=True), "caption"), (fuse(), "caption"), (fuse(), "recaption"), (translate("de"), "caption"),
        (Rewrite(engine="llm", styles=["human"], prompt="chat"), "caption"),
    ],
)  # fmt: skip
def test_hostile_text_stays_data(section, field):
    """Recaptions too: the model that wrote one may have followed an instruction."""
    column = {"caption": "caption", "recaption": "source"}[field]
    for text in HOSTILE.values():
        columns = {"caption": ["a cat"], "source": ["a cat"], "sha256": [PICTURE]}
        [plain], [found] = ask(section, **columns), ask(section, **columns | {column: [text]})
        *before, plain = plain.messages
        *same, found = found.messages
        head, tail = plain.text.split(f"<{field}>a cat</{field}>")
        assert same == before and found.text.startswith(f"{head}<{field}>") and found.text.endswith(f"</{field}>{tail}")
        assert [found.text.count(c) for c in "<>\n"] == [plain.text.count(c) for c in "<>\n"]


@pytest.mark.parametrize(
    ("section", "template", "texts"),
    [
        (recaption("short", "long"), "Look {length}.", [f"Look {STYLES[style].words}." for style in ("short", "long")]),
        (translate("de"), "{language}: <caption>{caption}</caption>", ["German: <caption>{a}</caption>"]),
        (fuse(), "<recaption>{recaption}</recaption> <caption>{caption}</caption>",
         ["<recaption>b</recaption> <caption>{a}</caption>"]),
    ],
)  # fmt: skip
def test_a_users_template(section, template, texts, tmp_path):
    (tmp_path / "mine.txt").write_text(f"[user]\n{template}")
    section = section.model_copy(update={"template": str(tmp_path / "mine.txt")})
    found = ask(section, caption=["{a}"], source=["b"], sha256=[PICTURE])
    assert [message.text for request in found for message in request.messages] == texts


@pytest.mark.parametrize(
    ("section", "style", "answer", "text"),
    [
        (recaption(), "short", '"A cat."\nIt sleeps.', "A cat."), (recaption(), "short", '"A cat.\nIt."', '"A cat.'),
        (recaption(), "long", '"A cat."\nIt sleeps.', '"A cat." It sleeps.'),
        (recaption(), "long", "\nA cat.\n\nIt sleeps.\n", "A cat. It sleeps."),
        (recaption(), "long", '"A cat.\nIt sleeps."', "A cat. It sleeps."), (recaption(), "long", " ", ""),
        (fuse(), "short", '\n "A red Corvane." \nI hope this helps!', "A red Corvane."), (fuse(), "short", "", ""),
        (translate("de"), "de", "\n„Eine Katze.“\n(Translation)", "Eine Katze."), (translate("de"), "de", "", ""),
    ],
)  # fmt: skip
def test_text_of(section, style, answer, text):
    assert section.text_of(answer, style) == text


# ---- recaptions


def test_a_recaption_names_its_image():
    found = recaption("short", "long").requests(see(["a cat"], 2), 0)
    assert [(r.style, r.ordinal) for r in found] == [("short", 0), ("short", 1), ("long", 0), ("long", 1)]
    for request in found:
        [message] = request.messages
        assert (request.kind, request.picture, request.prompt, message.role) == ("recaption", PICTURE, None, "user")
        assert STYLES[request.style].words in message.text and request.group == f"recaption/{request.style}"
    assert [request.sampling.max_tokens for request in found] == [77, 77, 256, 256]
    assert recaption().requests(see(["a cat"], picture=None), 0) == []
    [found] = recaption("plain").requests(see(["a"]), 0)
    assert (found.prompt, found.messages, found.style) == ("", (), "plain") and found.picture
    with pytest.raises(ValueError, match="'short', 'long' or 'plain'"):
        recaption("shrt")


def test_the_caption_is_shown_with_alt_text():
    [found] = recaption(alt_text=True).requests(see(["Mona Lisa"]), 0)
    assert found.messages[0].text.count("\n<caption>Mona Lisa</caption>\n") == 1
    nothing = see([None, "", " \u200b"])
    assert recaption(alt_text=True).requests(nothing, 0) == recaption().requests(nothing, 0)
    assert recaption().requests(see(["a cat"]), 0) == recaption().requests(see([None]), 0)


# ---- fused texts


def test_a_fused_text_needs_both_texts():
    [found] = ask(fuse(style="long"), caption=["Corvane Spider 1967"], source=["A red car\non a road."])
    assert (found.kind, found.style, found.ordinal, found.group) == ("fused", "long", 0, "fused")
    assert found.prompt is None and found.image is None
    system, user = found.messages
    assert user.text == "<caption>Corvane Spider 1967</caption>\n<recaption>A red car on a road.</recaption>"
    assert (system.role, user.role) == ("system", "user")
    found = ask(fuse(), caption=[None, "a", "", "a", "a"], source=["b", None, "b", "\n", "b"])
    assert [request.uid[-1] for request in found] == ["4"]


# ---- translations


def test_a_caption_is_not_translated_into_its_own_language():
    captions = {"caption": ["a cat", "eine Katze", "???", None, " "], "language": ["en", "de", None, "en", "en"]}
    found = ask(translate("de", "en", "sw"), **captions)
    pairs = ["0 de", "0 sw", "1 en", "1 sw", "2 de", "2 en", "2 sw"]
    assert [f"{request.uid[-1]} {request.style}" for request in found] == pairs
    for request in found:
        system, user = request.messages
        assert request.kind == "translation" and request.group == f"translation/{request.style}"
        assert LANGUAGES[request.style] in system.text and user.text.startswith("<caption>")
        assert request.prompt is None and request.image is None
    assert len({request.messages[0] for request in found}) == 3


def test_all_languages_are_ones_that_the_language_model_names():
    """Oracle: the model's own labels. A translation into any other language would always fail its gate."""
    import fasttext

    from curate.signals.language import _MODEL

    found, _ = fasttext.load_model(str(_MODEL)).predict("a cat", 1000, -1.0)  # all labels
    labels = {label.removeprefix("__label__") for label in found}
    assert len(labels) == 176 and set(LANGUAGES) <= labels and len(set(LANGUAGES.values())) == len(LANGUAGES)
    assert {label for label in labels if len(label) == 2} - set(LANGUAGES) == {"bh", "sh"}  # withdrawn from ISO 639-1


@pytest.mark.parametrize(
    ("code", "near"),
    [
        ("german", r"did you mean 'de \(German\)'"), ("Chinse", r"did you mean 'zh \(Chinese\)'"),
        ("pt-BR", r"did you mean 'pt \(Portuguese\)'"), ("zh_Hant", r"did you mean 'zh \(Chinese\)'"),
        ("EN", r"did you mean 'en \(English\)'"), ("deu", r"did you mean .*de \(German\)"),
        ("klingon!", "; accepted: ISO 639-1 codes"),
        ("zu", "accepted: ISO 639-1 codes of languages that curate can detect: af, am, "),
    ],
)  # fmt: skip
def test_an_unknown_language(code, near):
    with pytest.raises(ValueError, match=rf"unknown language '{code}'.*{near}"):
        translate("fr", code)
