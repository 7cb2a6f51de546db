"""Translations: languages by code, rows that need none, captions as data."""

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.captions.kinds.translate import LANGUAGES, Translate
from curate.llm.engine import Sampling
from tests.captions.hostile import HOSTILE
from tests.captions.rows import make_rows, requests


def table(rows, per_row=1):
    captions, languages = zip(*rows, strict=True) if rows else ((), ())
    return make_rows(per_row, caption=list(captions), language=list(languages))


def translate(*languages, **options):
    return Translate(engine="llm", languages=languages, **options)


def test_what_is_asked():
    rows = table([("a cat", "en"), ("eine Katze", "de"), ("???", None), (None, "en"), (" ", "en")])
    found = requests(rows, translate("de", "en", "sw"))
    assert [(r.uid[-1], r.style) for r in found] == [
        ("0", "de"), ("0", "sw"), ("1", "en"), ("1", "sw"), ("2", "de"), ("2", "en"), ("2", "sw"),
    ]  # fmt: skip
    for request in found:
        system, user = request.messages
        assert request.kind == "translation" and request.group == f"translation/{request.style}"
        assert LANGUAGES[request.style] in system.text and user.text.startswith("<caption>")
        assert request.sampling == Sampling(0.0, 1.0, 160) and request.prompt is None and request.image is None
    assert len({r.messages[0] for r in found}) == 3


def test_further_texts_are_drawn_and_the_first_stays():
    one, two = (requests(table([("a cat", "en")], n), translate("de", "fr")) for n in (1, 2))
    assert [(r.style, r.ordinal) for r in two] == [("de", 0), ("de", 1), ("fr", 0), ("fr", 1)] and one == two[::2]
    assert replace(two[1].sampling, seed=0) == Sampling(0.9, 0.9, 160)
    assert requests(table([("a cat", "en")], 0), translate("de")) == []


@given(st.permutations(range(9)), st.integers(0, 9))
@settings(max_examples=20)
def test_a_request_depends_on_its_row_alone(order, cut):
    rows = table([(f"cat {i}", ("en", "de", None)[i % 3]) for i in range(9)], 2)
    options = translate("de", "ja")
    shuffled = rows.take(pa.array(order, pa.int64()))
    parts = requests(shuffled[:cut], options) + requests(shuffled[cut:], options)
    by_place = {(r.uid, r.style, r.ordinal): r for r in parts}
    whole = requests(rows, options)
    assert [by_place[r.uid, r.style, r.ordinal] for r in whole] == whole and len(parts) == len(whole) == 30


def test_all_languages_are_ones_that_the_language_model_names():
    """Oracle: the model's own labels; else a translation could never pass its gate."""
    import fasttext

    from curate.signals.language import _MODEL

    found, _ = fasttext.load_model(str(_MODEL)).predict("a cat", 1000, -1.0)  # all that there are
    labels = {label.removeprefix("__label__") for label in found}
    assert len(labels) == 176
    assert set(LANGUAGES) <= labels
    assert {label for label in labels if len(label) == 2} - set(LANGUAGES) == {"bh", "sh"}  # withdrawn from ISO 639-1
    assert len(set(LANGUAGES.values())) == len(LANGUAGES)


@pytest.mark.parametrize(
    ("code", "near"),
    [
        ("german", r"did you mean 'de \(German\)'"), ("Chinse", r"did you mean 'zh \(Chinese\)'"),
        ("pt-BR", r"did you mean 'pt \(Portuguese\)'"), ("zh_Hant", r"did you mean 'zh \(Chinese\)'"),
        ("EN", r"did you mean 'en \(English\)'"), ("deu", r"did you mean .*de \(German\)"),
        ("klingon!", "; accepted: ISO 639-1 codes"),
        ("zu", "accepted: ISO 639-1 codes of languages that can be identified: af, am, "),
    ],
)  # fmt: skip
def test_an_unknown_language(code, near):
    with pytest.raises(ValueError, match=near) as error:
        translate("fr", code)
    assert f"unknown language {code!r}" in str(error.value)


def test_an_own_template(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("[user]\n{language}: <caption>{caption}</caption>")
    options = translate("de", template=str(path))
    [found] = requests(table([("a {language}", "en")]), options)
    assert [m.text for m in found.messages] == ["German: <caption>a {language}</caption>"]


@pytest.mark.parametrize("caption", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_caption_stays_data(caption):
    [found], [plain] = (requests(table([(c, None)]), translate("de")) for c in (caption, "a cat"))
    assert found.messages[0] == plain.messages[0] and len(found.messages) == 2
    text = found.messages[1].text
    assert text.startswith("<caption>") and text.endswith("</caption>")
    assert "\n" not in text and text.count("<") == text.count(">") == 2


def test_text_of():
    assert translate("de").text_of("\n„Eine Katze.“\n(Translation)", "de") == "Eine Katze."
    assert translate("de").text_of("", "de") == ""
